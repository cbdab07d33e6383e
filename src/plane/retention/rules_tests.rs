//! Stories of trails: who holds, who shortens, and who may not.

use serde_json::json;

use super::*;
use crate::store::audit::{Act, Who};

fn who(uid: u32) -> Who {
    Who { uid, user: format!("user{uid}"), role: "compliance".to_owned() }
}

fn entries(acts: Vec<Act>) -> Vec<Entry> {
    let of = |(place, act): (usize, Act)| Entry {
        number: place as u64 + 1,
        previous: [0; 32],
        at: act.at,
        who: act.who,
        action: act.action,
        object: act.object,
        reason: act.reason,
        outcome: act.outcome,
        detail: act.detail,
    };
    acts.into_iter().enumerate().map(of).collect()
}

fn proposed(uid: u32) -> Act {
    Act::new(Wall(5), who(uid), action::RETENTION_PROPOSED, "desk")
        .with(detail::CLASS, "desk")
        .with(detail::KEEP, "90d")
}

fn approved(uid: u32, number: u64) -> Act {
    Act::new(Wall(6), who(uid), action::RETENTION_APPROVED, number.to_string())
}

#[test]
fn a_hold_lasts_until_it_is_taken_away() {
    let hold = Act::new(Wall(5), who(1), action::HOLD_ADD, "")
        .with(detail::QUERY, json!({"words": ["ann"]}));
    let refused = hold.clone().refused("no such role");
    let odd = Act::new(Wall(6), who(1), action::HOLD_ADD, "").with(detail::QUERY, json!({"x": 1}));
    let all = entries(vec![hold, refused, odd]);
    let rules = Rules::of(&all);
    assert_eq!(rules.holds.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(rules.unread, [3], "who knows what that holds");
    let gone = |number: &str| Act::new(Wall(7), who(2), action::HOLD_RM, number);
    let ended = entries(vec![gone("0"), gone("1"), gone("3")]);
    let rules = Rules::of(all.iter().chain(&ended));
    assert!(rules.holds.is_empty() && rules.unread.is_empty());
}

#[test]
fn f77_nobody_shortens_alone() {
    let rules = |acts| Rules::of(&entries(acts));
    assert!(rules(vec![proposed(1), approved(1, 1)]).shortenings.is_empty());
    assert!(rules(vec![proposed(1), approved(2, 9)]).shortenings.is_empty());
    let agreed = rules(vec![proposed(1), approved(2, 1), approved(3, 1)]).shortenings;
    let keep = "90d".parse().expect("how long");
    assert_eq!(agreed, [Shortening { class: "desk".to_owned(), keep, at: Wall(6) }]);
    // Both have become root, and are two persons or one by how they logged in.
    let by = |act: Act, login: u32| act.with(detail::LOGIN, format!("user{login}"));
    let same = vec![by(proposed(0), 1000), by(approved(0, 1), 1000)];
    assert!(rules(same).shortenings.is_empty());
    let two = vec![by(proposed(0), 1000), by(approved(0, 1), 1001)];
    assert_eq!(rules(two).shortenings.len(), 1);
    let himself = vec![proposed(1000), by(approved(0, 1), 1000)];
    assert!(rules(himself).shortenings.is_empty());
}
