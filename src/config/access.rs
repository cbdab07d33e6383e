//! The shape of `[access]`: who may do what, apart from the store's own user and root, who may do all of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `[access]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Who begins, pauses, resumes and ends recordings.
    pub operator: Vec<Principal>,
    /// Who listens and exports.
    pub listener: Vec<Principal>,
    /// Who holds recordings and decides how long they are kept; listens as well.
    pub compliance: Vec<Principal>,
    /// Who reads the audit trail and verifies; hears nothing.
    pub auditor: Vec<Principal>,
    /// For what a reason must be given.
    pub reason: ReasonFor,
}

impl Access {
    /// Whom a role is given to; nobody where it is the owner's.
    pub fn of(&self, role: Role) -> &[Principal] {
        match role {
            Role::Owner => &[],
            Role::Operator => &self.operator,
            Role::Listener => &self.listener,
            Role::Compliance => &self.compliance,
            Role::Auditor => &self.auditor,
        }
    }

    /// Whether anybody but the owner may do anything.
    pub fn has_any(&self) -> bool {
        Role::ALL.iter().any(|role| !self.of(*role).is_empty())
    }
}

/// For what a reason must be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReasonFor {
    /// For nothing.
    #[default]
    Never,
    /// For whatever gives audio.
    Listen,
}

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The store's own user, and root: all rights.
    Owner,
    /// `access.operator`.
    Operator,
    /// `access.listener`.
    Listener,
    /// `access.compliance`.
    Compliance,
    /// `access.auditor`.
    Auditor,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Begin, pause, resume and end recordings.
    Control,
    /// See what there is: `ls`, `show`.
    See,
    /// Hear it: `export`, `play`, `tap`.
    Hear,
    /// Check it: `verify`.
    Verify,
    /// Hold it, and decide how long it is kept.
    Keep,
    /// Read the audit trail.
    Trail,
}

impl Role {
    /// All of them, the widest first.
    pub const ALL: [Role; 5] =
        [Role::Owner, Role::Compliance, Role::Listener, Role::Operator, Role::Auditor];

    /// Whether it has a right.
    pub const fn may(self, right: Right) -> bool {
        use Right::{Control, Hear, Keep, See, Trail, Verify};
        match self {
            Role::Owner => true,
            Role::Operator => matches!(right, Control),
            Role::Listener => matches!(right, See | Hear),
            Role::Compliance => matches!(right, See | Hear | Verify | Keep),
            Role::Auditor => matches!(right, See | Verify | Trail),
        }
    }

    /// As the configuration and the audit trail have it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Operator => "operator",
            Role::Listener => "listener",
            Role::Compliance => "compliance",
            Role::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom a role is given to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Principal {
    /// The user of that number.
    Uid(u32),
    /// The user of that name.
    User(String),
    /// Everybody in the group of that name.
    Group(String),
}

impl TryFrom<String> for Principal {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_prefix('@').unwrap_or(&text);
        let fits = |c: char| !c.is_control() && !c.is_whitespace() && !":,/\"\\".contains(c);
        // What no name of a user or group may have (useradd(8)); those of a directory may have an @.
        if name.is_empty()
            || name.len() > 256
            || name.starts_with(['-', '@'])
            || !name.chars().all(fits)
        {
            return Err(format!(
                "expected a user's name or number, or a group as \"@NAME\", found \"{text}\""
            ));
        }
        let name = name.to_owned();
        Ok(match name.parse() {
            _ if text.starts_with('@') => Principal::Group(name),
            Ok(uid) => Principal::Uid(uid),
            Err(_) => Principal::User(name),
        })
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        match principal {
            Principal::Uid(uid) => uid.to_string(),
            Principal::User(name) => name,
            Principal::Group(name) => format!("@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_names_numbers_and_groups_and_nothing_else() {
        let of = |text: &str| Principal::try_from(text.to_owned());
        assert_eq!(of("kim"), Ok(Principal::User("kim".into())));
        assert_eq!(of("1001"), Ok(Principal::Uid(1_001)));
        assert_eq!(of("@desk-2"), Ok(Principal::Group("desk-2".into())));
        assert_eq!(of("@12"), Ok(Principal::Group("12".into())), "a name of digits");
        for text in ["kim", "1001", "@desk-2", "kim@example"] {
            assert_eq!(of(text).map(String::from).as_deref(), Ok(text));
        }
        for text in ["", "@", "@@a", "a b", "a:b", "-a", "a,b", "a\n", "@@", "../a"] {
            assert!(of(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn who_may_hear_is_not_who_audits_and_only_the_owner_may_all() {
        use Right::{Control, Hear, Keep, See, Trail, Verify};
        let rights = [Control, See, Hear, Verify, Keep, Trail];
        let may = |role: Role| rights.into_iter().filter(|right| role.may(*right)).collect();
        let table: Vec<(Role, Vec<Right>)> =
            Role::ALL.iter().map(|role| (*role, may(*role))).collect();
        let wanted = [
            (Role::Owner, rights.to_vec()),
            (Role::Compliance, vec![See, Hear, Verify, Keep]),
            (Role::Listener, vec![See, Hear]),
            (Role::Operator, vec![Control]),
            (Role::Auditor, vec![See, Verify, Trail]),
        ];
        assert_eq!(table, wanted);
    }
}
