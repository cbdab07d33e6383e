//! Users and groups as this machine knows them: `/etc/passwd` and `/etc/group`, and what `getent` says of
//! those that a directory service has.

use std::process::{Command, Stdio};

/// A line of `/etc/passwd`, as far as we ask (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// Its name.
    pub name: String,
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { uid, gid, name })
}

/// The line of a table that `is_it` likes; asked of the directory services by `key` where the file has
/// none.
fn line(table: &str, key: &str, is_it: impl Fn(&str) -> bool) -> Option<String> {
    let text = std::fs::read_to_string(format!("/etc/{table}")).unwrap_or_default();
    if let Some(line) = text.lines().find(|line| is_it(line)) {
        return Some(line.to_owned());
    }
    // No more than a look: machines without the program know no others.
    let mut ask = Command::new("/usr/bin/getent");
    ask.args([table, "--", key]).stdin(Stdio::null()).stderr(Stdio::null());
    let said = String::from_utf8(ask.output().ok()?.stdout).ok()?;
    said.lines().find(|line| is_it(line)).map(str::to_owned)
}

/// The user of that number.
pub fn by_uid(uid: u32) -> Option<User> {
    let is_it = |line: &str| user(line).is_some_and(|user| user.uid == uid);
    line("passwd", &uid.to_string(), is_it).as_deref().and_then(user)
}

/// The name of the user of that number; the number where this machine knows none.
pub fn name(uid: u32) -> String {
    by_uid(uid).map_or_else(|| uid.to_string(), |user| user.name)
}

/// The number and the members of the group of that name.
fn group(name: &str) -> Option<(u32, Vec<String>)> {
    let line = line("group", name, |line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    Some((gid, members.map(str::to_owned).collect()))
}

/// Whether the user is in the group of that name: by its first group, or as a member.
pub fn is_in(user: &User, group_name: &str) -> bool {
    group(group_name).is_some_and(|(gid, members)| gid == user.gid || members.contains(&user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_number_0_is_in_its_own_group_and_nobody_is_in_one_that_is_not_there() {
        let root = by_uid(0).expect("every machine has it");
        assert_eq!((root.name.as_str(), root.gid), ("root", 0));
        assert!(is_in(&root, "root"));
        assert!(!is_in(&root, "no-such-group-here"));
        let of_other = User { gid: 4_000_000_001, name: "somebody".into(), uid: 4_000_000_001 };
        assert!(!is_in(&of_other, "root"));
        assert_eq!(name(4_000_000_001), "4000000001", "a number that nobody has");
    }

    #[test]
    fn lines_that_are_cut_name_nobody() {
        for line in ["", "a", "a:x", "a:x:1", "a:x:b:1", "a:x:1:c"] {
            assert_eq!(user(line), None, "{line}");
        }
        let found = user("tape:x:107:108:Tape:/var/lib/tape:/bin/false");
        assert_eq!(found, Some(User { uid: 107, gid: 108, name: "tape".into() }));
    }
}
