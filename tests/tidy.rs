//! Rules that a compiler does not check: which layer may import which, where `unsafe` may stand,
//! where a third-party engine may be named, which words are banned on the hot path, what the top
//! level holds, and which licences the dependencies may have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Layer (or folder in a layer) and what it may import with `crate::…`. The longest match counts.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &["base"]),
    ("wire", &["base", "wire"]),
    ("proto/sip", &["base", "wire", "proto::sip"]),
    ("proto/session", &["base", "wire", "proto::session"]),
    ("proto/srtp", &["base", "wire", "proto::srtp"]),
    ("proto/media", &["base", "wire", "proto::media"]),
    ("store", &["base", "wire", "store"]),
    ("plane/handoff", &["base", "wire", "proto", "store", "config", "plane::handoff"]),
    ("plane/retention", &["base", "wire", "proto", "store", "config", "plane::retention"]),
    (
        "plane/worker",
        &["base", "wire", "proto", "store", "config", "plane::handoff", "plane::worker"],
    ),
    (
        "plane/spool",
        &["base", "wire", "proto", "store", "config", "plane::handoff", "plane::spool"],
    ),
    (
        "plane/watch",
        &["base", "wire", "proto", "store", "config", "plane::handoff", "plane::watch"],
    ),
    (
        "plane/reporter",
        &["base", "wire", "proto", "store", "config", "plane::handoff", "plane::reporter"],
    ),
    (
        "plane/control",
        &[
            "base",
            "wire",
            "proto",
            "store",
            "config",
            "plane::handoff",
            "plane::retention",
            "plane::control",
        ],
    ),
    (
        "plane/keeper",
        &["base", "wire", "proto", "store", "config", "plane::handoff", "plane::keeper"],
    ),
    ("client", &["base", "wire", "proto", "client"]),
    ("config", &["base", "config"]),
    ("host", &["base", "wire", "proto", "store", "plane", "client", "config", "host"]),
    ("shell", &["base", "wire", "proto", "store", "plane", "client", "config", "host", "shell"]),
];

/// The only files that may hold `unsafe`. The floor of benches/path.sh has a ring of its own, since it
/// measures what the product's engine adds.
const UNSAFE: &[&str] = &[
    "benches/path/floor.rs",
    "src/host/bpf.rs",
    "src/host/mapped.rs",
    "src/host/process.rs",
    "src/host/recvmmsg.rs",
    "src/host/seqpacket.rs",
    "src/host/signal.rs",
    "src/host/socket.rs",
    "src/host/uring.rs",
    "src/store/evidence/lanes.rs",
    "tests/alloc.rs",
];

/// Engines and the only places that may name them.
const ENGINES: &[(&str, &[&str])] = &[
    ("io_uring::", &["src/host/uring"]),
    ("memmap2::", &["src/host/mapped"]),
    ("rusqlite::", &["src/host/sqlite"]),
    ("ropus::", &["src/store/export/decoder"]),
    ("rsip::", &["src/wire/sip/"]),
    ("webrtc_sdp::", &["src/wire/sdp/"]),
    ("webrtc_srtp::", &["src/client/"]),
    ("ctrlc::", &["src/shell/", "src/host/"]),
    ("tokio::", &["src/shell/"]),
    ("tokio_rustls::", &["src/shell/"]),
    ("rustls::", &["src/shell/"]),
    ("webpki::", &["src/shell/tls/"]),
    ("hyper::", &["src/shell/serve/control/http"]),
    ("prometheus_client::", &["src/shell/serve/control/metrics"]),
    ("roxmltree::", &["src/wire/metadata/"]),
    ("quick_xml::", &["src/wire/metadata/"]),
];

/// Layers that hold no clock, socket, file, thread, or log. Tests at the bottom of a file may.
const PURE: &[&str] = &["base", "wire", "proto", "store", "plane", "client"];
/// Words that reach outside.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "UdpSocket",
    "TcpStream",
    "tracing::",
    "println!",
    "libc::",
    "rustix::",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files(&path, extension, out);
        } else if path.extension().is_some_and(|found| found == extension) {
            out.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in folders {
        files(&root().join(folder), "rs", &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            (name, fs::read_to_string(&path).expect("UTF-8 source"))
        })
        .filter(|(name, _)| name != "tests/tidy.rs")
        .collect()
}

/// The part of a file that is product code: comments and the tests at the bottom left out.
fn product(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
        .collect()
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn continues_a_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

#[test]
fn arrows_point_down() {
    let mut faults = Vec::new();
    for (name, text) in sources(&["src"]) {
        let place = name.trim_start_matches("src/");
        let Some((_, allowed)) = ARROWS
            .iter()
            .filter(|(folder, _)| place.starts_with(&format!("{folder}/")))
            .max_by_key(|(folder, _)| folder.len())
        else {
            continue;
        };
        for (number, line) in product(&text) {
            for (at, _) in line.match_indices("crate::") {
                let target = &line[at + "crate::".len()..];
                let fits = |prefix: &&str| {
                    target.strip_prefix(prefix).is_some_and(|rest| !continues_a_word(rest))
                };
                if !target.starts_with('{') && !allowed.iter().any(fits) {
                    faults.push(format!("{name}:{number}: may not import crate::{target}"));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let mut faults = Vec::new();
    for (name, text) in sources(&["src", "tests", "benches"]) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let uses = ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|w| code.contains(w));
            if uses && !UNSAFE.contains(&name.as_str()) {
                faults.push(format!("{name}:{}: unsafe outside the listed files", number + 1));
            }
        }
    }
    report(&faults);
}

#[test]
fn engines_stay_behind_their_edges() {
    let mut faults = Vec::new();
    for (name, text) in sources(&["src"]) {
        for (number, line) in product(&text) {
            for (engine, places) in ENGINES {
                let named = line.match_indices(engine).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                });
                if named && !places.iter().any(|place| name.starts_with(place)) {
                    faults.push(format!("{name}:{number}: {engine} belongs in {places:?}"));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn pure_layers_touch_nothing_outside() {
    let mut faults = Vec::new();
    for layer in PURE {
        for (name, text) in sources(&[&format!("src/{layer}")]) {
            for (number, line) in product(&text) {
                for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                    faults.push(format!("{name}:{number}: {word} in a pure layer"));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn no_unfinished_words() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "#[ignore", "#[allow("];
    let mut faults = Vec::new();
    for (name, text) in sources(&["src", "tests", "benches"]) {
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    report(&faults);
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut faults = Vec::new();
    for (name, text) in sources(&["src"]) {
        if !text.starts_with("//!") {
            faults.push(format!("{name}: no module documentation"));
        }
        let lines = text.lines().count();
        if lines > 900 {
            faults.push(format!("{name}: {lines} lines; look for a seam near 500"));
        }
    }
    report(&faults);
}

#[test]
fn the_top_level_holds_what_it_should() {
    let wanted: BTreeSet<&str> = [
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "appliance",
        "benches",
        "rustfmt.toml",
        "src",
        "tests",
        "tuning",
    ]
    .into();
    let extra: Vec<String> = fs::read_dir(root())
        .expect("the root is readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && name != "floortape-data")
        .filter(|name| !wanted.contains(name.as_str()))
        .collect();
    assert!(extra.is_empty(), "not at the top level: {extra:?}");
}

#[test]
fn direct_dependencies_are_pinned() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let mut section = "";
    let mut faults = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies]")
            && let Some((name, value)) = line.split_once(" = ")
            && !line.starts_with('#')
            && !value.contains("\"=")
        {
            faults.push(format!("{name} is not pinned exactly"));
        }
    }
    report(&faults);
}

/// Fault points exist only where the feature `faults` asks for them; it must be asked for by name.
#[test]
#[cfg(not(feature = "faults"))]
fn the_default_build_holds_no_fault_point() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    assert!(!manifest.lines().any(|line| line.starts_with("default = ")), "no default features");
    let binary = fs::read(env!("CARGO_BIN_EXE_floortape")).expect("built for this test");
    let holds = |word: &str| memchr::memmem::find(&binary, word.as_bytes()).is_some();
    assert!(holds("health: "), "the binary's texts can be found");
    // The variable's name, and the name of every point and switch in the source.
    assert!(!holds("FLOORTAPE_FAULTS"));
    let mut points = 0;
    for (name, text) in sources(&["src"]) {
        for (_, line) in product(&text).iter().filter(|_| !name.starts_with("src/base/faults")) {
            for verb in ["fault!(\"", "fault_io!(\"", "faulty!(\"", "faults::pass(\""] {
                let Some((_, rest)) = line.split_once(verb) else { continue };
                let point = rest.split('"').next().expect("one part at least");
                assert!(point.contains('.') && !holds(point), "{name}: {point} is in the binary");
                points += 1;
            }
        }
    }
    assert!(points > 10, "{points} points found: the search has gone blind");
}

/// Licences that a dependency may carry.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
];

/// At least one alternative of each conjunct must be allowed. Good enough for SPDX without nesting
/// deeper than one pair of brackets.
fn permitted(expression: &str) -> bool {
    expression
        .replace(['(', ')'], "")
        .replace('/', " OR ")
        .split(" AND ")
        .all(|conjunct| conjunct.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn licences_are_on_the_list() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform"])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 50);
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        let licence = package["license"].as_str().unwrap_or("");
        // rsip and its derives have no licence field; the project ships an MIT licence file.
        if !(permitted(licence) || name.starts_with("rsip") && licence.is_empty()) {
            faults.push(format!("{name}: {licence:?}"));
        }
    }
    report(&faults);
}

/// By what is built: the lock file, and the graph of `metadata`, also hold what features that are off
/// would bring (rustls-webpki names ring in one).
#[test]
fn no_banned_library_is_built() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("rustls") && names.contains("rcgen"), "the search has gone blind");
    for banned in ["ring", "openssl", "openssl-sys", "g729-sys"] {
        assert!(!names.contains(banned), "{banned} is banned");
    }
}
