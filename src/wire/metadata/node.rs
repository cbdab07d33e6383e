//! The edge to `roxmltree`: lenient look-ups on one element.

use roxmltree::Node;

use super::id::Id;
use super::model::Extension;

/// A name as it is compared: lower case, without `-` and `_`.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether a namespace is one that recording metadata was ever in.
pub(super) fn is_ours(namespace: &str) -> bool {
    namespace.is_empty()
        || namespace.starts_with("urn:ietf:params:xml:ns:recording")
        || namespace.starts_with("urn:ietf:params:xml:ns:siprec")
}

/// Child elements in our namespaces, with their plain names.
pub(super) fn children<'a, 'i>(
    node: Node<'a, 'i>,
) -> impl Iterator<Item = (String, Node<'a, 'i>)> + use<'a, 'i> {
    node.children()
        .filter(|child| child.is_element() && is_ours(child.tag_name().namespace().unwrap_or("")))
        .map(|child| (plain(child.tag_name().name()), child))
}

/// All text of an element, white space at both ends cut off.
pub(super) fn text(node: Node<'_, '_>) -> String {
    let parts = node.children().filter(Node::is_text).filter_map(|child| child.text());
    parts.collect::<String>().trim().to_owned()
}

/// Text of the first child of one of those plain names; `None` where it is absent or empty.
pub(super) fn child_text(node: Node<'_, '_>, names: &[&str]) -> Option<String> {
    children(node)
        .find(|(name, _)| names.contains(&name.as_str()))
        .map(|(_, child)| text(child))
        .filter(|text| !text.is_empty())
}

/// The attribute of one of those plain names, in order of preference.
pub(super) fn attribute<'a>(node: Node<'a, '_>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|wanted| {
        node.attributes().find(|own| plain(own.name()) == **wanted).map(|own| own.value())
    })
}

/// An id from the attributes `x_id`, `xid`, `id`, else from a child of that name.
pub(super) fn id(node: Node<'_, '_>, names: &[&str]) -> Option<Id> {
    attribute(node, names)
        .map(Id::new)
        .or_else(|| child_text(node, names).map(|text| Id::new(&text)))
}

/// The element as received, with the namespace declarations that it inherits. Where it inherits no
/// default namespace that is declared too: it must not take on the one of a document it is put in.
pub(super) fn extension(node: Node<'_, '_>, input: &str) -> Extension {
    let raw = &input[node.range()];
    let name_end =
        raw.find([' ', '\t', '\r', '\n', '/', '>']).expect("an element's start tag ends");
    let declared = attribute_names(&raw[name_end..]);
    let mut declarations = String::new();
    let mut declare = |attribute: String, uri: &str| {
        if !declared.contains(&attribute.as_str()) {
            let uri = uri.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            declarations.push_str(&format!(" {attribute}=\"{uri}\""));
        }
    };
    for namespace in node.namespaces() {
        match namespace.name() {
            Some("xml") => {}
            Some(prefix) if !raw.contains(&format!("{prefix}:")) => {}
            Some(prefix) => declare(format!("xmlns:{prefix}"), namespace.uri()),
            None => {}
        }
    }
    declare("xmlns".to_owned(), node.default_namespace().unwrap_or(""));
    Extension {
        namespace: node.tag_name().namespace().unwrap_or("").to_owned(),
        name: node.tag_name().name().to_owned(),
        xml: format!("{}{declarations}{}", &raw[..name_end], &raw[name_end..]),
    }
}

/// Names of the attributes in the rest of a start tag, behind the element's name.
fn attribute_names(mut rest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    // Bounded: each round takes a name and a value off a text that the parser has found well-formed.
    loop {
        rest = rest.trim_start();
        let Some(end) = rest.find(|c: char| c == '=' || c.is_whitespace()) else { return names };
        if rest.starts_with(['>', '/']) {
            return names;
        }
        names.push(&rest[..end]);
        let Some(value) = rest[end..].trim_start().strip_prefix('=').map(str::trim_start) else {
            return names;
        };
        let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return names;
        };
        let Some(close) = value[1..].find(quote) else { return names };
        rest = &value[close + 2..];
    }
}
