//! The shape of `[[retention]]`: how long what is recorded is kept.

use serde::{Deserialize, Serialize};

use super::policy::{AorPattern, MediaKind};
use crate::base::keep::Keep;

/// The class of a recording that no other one fits.
pub const DEFAULT_CLASS: &str = "default";

/// `[[retention]]`: a class of recordings, one line of which meets all conditions that it has; of the
/// values of one condition any will do. The first that fits counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionClass {
    /// Name in reports; no two have the same.
    pub name: String,
    /// How long each part of a recording is kept from when it came.
    pub keep: Keep,
    /// Names of `[[peers]]`: who sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Vec<String>>,
    /// Whom its metadata names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aor: Option<Vec<AorPattern>>,
    /// The `a=label` of a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Vec<String>>,
    /// Its media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Vec<MediaKind>>,
    /// The codec that is taken of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Vec<String>>,
}
