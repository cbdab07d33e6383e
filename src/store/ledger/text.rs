//! Real-time text (RFC 4103, T.140): what was typed, by line, with what was lost put back from redundancy.

use std::collections::BTreeMap;

use crate::base::time::Wall;
use crate::store::catalog::model::TextLine;
use crate::wire::red::Red;

/// Octets of text kept per stream: some days of a fast typist.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Lines kept per stream.
const LINES_MAX: usize = 50_000;
/// How many packets what is missing is waited for: each holds what two or three before it held, and packets
/// pass each other by a few.
const WINDOW: u64 = 32;
/// Stands for text that was lost (T.140 §8, RFC 4103 §5.4).
const LOST: char = '\u{fffd}';

/// The text of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    sources: BTreeMap<u16, Typed>,
    bytes: usize,
    lines: usize,
}

/// What one source types.
#[derive(Clone, Debug, Default)]
struct Typed {
    ssrc: u32,
    /// The index whose text comes next.
    next: Option<u64>,
    /// Behind it: when it was sent, and what.
    waiting: BTreeMap<u64, (Wall, Box<[u8]>)>,
    /// Finished lines and the one that is typed; the last one may be empty.
    lines: Vec<(Wall, String)>,
    escape: Escape,
}

/// Where in a sequence of controls that say nothing the text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// Behind ESC: one octet more.
    Escaped,
    /// In a control sequence (ISO 6429): up to a letter.
    Sequence,
    /// In a string of controls: up to ST.
    Block,
}

impl Texts {
    /// Takes a packet. `is_red`: its payload is redundant data, `own` the payload type of the text in it.
    pub(super) fn packet(
        &mut self,
        (ordinal, ssrc): (u16, u32),
        index: u64,
        arrival: Wall,
        payload: &[u8],
        red: Option<RedText>,
    ) {
        let room = self.bytes < TEXT_BYTES_MAX && self.lines < LINES_MAX;
        if !room {
            return;
        }
        let typed = self.sources.entry(ordinal).or_default();
        typed.ssrc = ssrc;
        let before = typed.size();
        match red {
            None => typed.take(index, arrival, payload),
            Some(RedText { text, clock_rate }) => {
                let Some(red) = Red::parse(payload) else { return };
                // What is of another kind keeps its place.
                let own =
                    |payload_type: u8, data| if payload_type == text { data } else { &[][..] };
                let count = red.earlier.len() as u64;
                for (number, block) in red.earlier.iter().enumerate() {
                    let Some(at) = index.checked_sub(count - number as u64) else { continue };
                    let ns =
                        i64::from(block.earlier) * 1_000_000_000 / i64::from(clock_rate.max(1));
                    let sent = Wall(arrival.0.saturating_sub(ns));
                    typed.take(at, sent, own(block.payload_type, block.data));
                }
                typed.take(index, arrival, own(red.payload_type, red.primary));
            }
        }
        let after = typed.size();
        self.bytes += after.0.saturating_sub(before.0);
        self.lines += after.1.saturating_sub(before.1);
    }

    /// The lines of all sources by the time when they were begun, and whether there was more than is kept.
    pub(super) fn lines(&self) -> (Vec<TextLine>, bool) {
        let mut lines: Vec<TextLine> = Vec::new();
        for typed in self.sources.values() {
            let mut whole = typed.clone();
            whole.settle(u64::MAX);
            let ssrc = whole.ssrc;
            let said = whole.lines.into_iter().filter(|(_, text)| !text.is_empty());
            lines.extend(said.map(|(at, text)| TextLine { at, ssrc, text }));
        }
        lines.sort_by_key(|line| line.at);
        (lines, self.bytes >= TEXT_BYTES_MAX || self.lines >= LINES_MAX)
    }
}

/// How redundant data carries text: the payload type of the text, and the RTP clock rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedText {
    pub(super) text: u8,
    pub(super) clock_rate: u32,
}

impl Typed {
    fn size(&self) -> (usize, usize) {
        let last = self.lines.last().map_or(0, |(_, text)| text.len());
        let waiting: usize = self.waiting.values().map(|(_, text)| text.len()).sum();
        // Of finished lines only how many there are can change.
        (last + waiting + self.lines.len() * size_of::<(Wall, String)>(), self.lines.len())
    }

    /// Takes the text of one index, once. The first one is the oldest that the first packet tells of.
    fn take(&mut self, index: u64, sent: Wall, text: &[u8]) {
        if index < *self.next.get_or_insert(index) {
            return;
        }
        self.waiting.entry(index).or_insert_with(|| (sent, text.into()));
        self.settle(index);
    }

    /// Puts down what is next, and what is not waited for any more once `index` was seen; all where that is the
    /// last of all indexes.
    fn settle(&mut self, index: u64) {
        while let (Some(next), Some(entry)) = (self.next, self.waiting.first_entry()) {
            let found = *entry.key();
            if found != next {
                if index.saturating_sub(next) < WINDOW {
                    return;
                }
                let at = entry.get().0;
                self.put(at, LOST);
            }
            let (_, (at, text)) = self.waiting.pop_first().expect("looked at");
            self.next = Some(found + 1);
            // T140blocks hold whole characters (RFC 4103 §4).
            for character in String::from_utf8_lossy(&text).chars() {
                self.character(at, character);
            }
        }
    }

    fn character(&mut self, at: Wall, character: char) {
        match (self.escape, character) {
            (Escape::Block, '\u{9c}') => self.escape = Escape::None,
            (Escape::Block, _) => {}
            (Escape::Escaped, '[') => self.escape = Escape::Sequence,
            (Escape::Escaped, _) => self.escape = Escape::None,
            (Escape::Sequence, '\u{40}'..='\u{7e}') => self.escape = Escape::None,
            (Escape::Sequence, _) => {}
            // T.140 §8: erases what was typed last, line ends included.
            (Escape::None, '\u{8}') => self.erase(),
            (Escape::None, '\n' | '\u{2028}' | '\u{2029}') => self.lines.push((at, String::new())),
            (Escape::None, '\u{1b}') => self.escape = Escape::Escaped,
            (Escape::None, '\u{9b}') => self.escape = Escape::Sequence,
            (Escape::None, '\u{98}') => self.escape = Escape::Block,
            // Line ends are CR LF or LS; the byte order mark keeps a connection open; a bell rings.
            (Escape::None, '\r' | '\u{feff}' | '\u{7}' | '\0') => {}
            (Escape::None, other) => self.put(at, other),
        }
    }

    fn put(&mut self, at: Wall, character: char) {
        if self.lines.is_empty() {
            self.lines.push((at, String::new()));
        }
        let Some((begun, line)) = self.lines.last_mut() else { return };
        if line.is_empty() {
            *begun = at;
        }
        line.push(character);
    }

    fn erase(&mut self) {
        if let Some((_, line)) = self.lines.last_mut()
            && line.pop().is_none()
        {
            self.lines.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const RED: Option<RedText> = Some(RedText { text: 98, clock_rate: 1_000 });

    /// A sender of RFC 4103: each block with the two before it.
    fn packets(blocks: &[&str]) -> Vec<Vec<u8>> {
        (0..blocks.len())
            .map(|number| {
                let earlier: Vec<&str> = (1..=2)
                    .rev()
                    .map(|back| number.checked_sub(back).map_or("", |n| blocks[n]))
                    .collect();
                let mut packet = Vec::new();
                for (place, block) in earlier.iter().enumerate() {
                    let head: u32 =
                        (0x80 | 98) << 24 | (600 - 300 * place as u32) << 10 | block.len() as u32;
                    packet.extend(head.to_be_bytes());
                }
                packet.push(98);
                earlier.iter().for_each(|block| packet.extend(block.bytes()));
                packet.extend(blocks[number].bytes());
                packet
            })
            .collect()
    }

    fn text(texts: &Texts) -> String {
        let (lines, cut) = texts.lines();
        assert!(!cut);
        lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    const TYPED: [&str; 9] =
        ["\u{feff}", "Buy ", "500 ", "", "at 1", "2\u{8}3.2", "5\r\nSüd", "werte\u{2028}", "ok"];
    const READ: &str = "Buy 500 at 13.25\nSüdwerte\nok";

    #[test]
    fn one_of_three_lost_is_all_there_in_any_order() {
        for seed in 0..200 {
            let mut random = Prng::new(seed);
            let lost = random.below(3) as usize;
            let mut sent: Vec<(u64, Vec<u8>)> = packets(&TYPED)
                .into_iter()
                .enumerate()
                .filter(|(number, _)| number % 3 != lost || *number + 1 == TYPED.len())
                .map(|(number, packet)| (65_530 + number as u64, packet))
                .collect();
            for place in 1..sent.len() {
                if random.below(3) == 0 {
                    sent.swap(place - 1, place);
                }
            }
            let mut texts = Texts::default();
            for (index, packet) in &sent {
                for _ in 0..=random.below(2) {
                    let at = Wall(*index as i64 * 300_000_000);
                    texts.packet((1, 7), *index, at, packet, RED);
                }
            }
            assert_eq!(text(&texts), READ, "seed {seed}");
        }
    }

    #[test]
    fn what_no_packet_has_is_marked_and_lines_have_the_time_of_their_first_character() {
        let mut texts = Texts::default();
        for (number, packet) in
            packets(&["a", "b", "c", "d", "e", "f", "\u{2028}g"]).iter().enumerate()
        {
            if !(1..=4).contains(&number) {
                let at = Wall(number as i64 * 300_000_000);
                texts.packet((1, 7), number as u64, at, packet, RED);
            }
        }
        let (lines, _) = texts.lines();
        let told: Vec<_> = lines.iter().map(|line| (line.at.0, line.ssrc, &*line.text)).collect();
        assert_eq!(told, [(0, 7, "a\u{fffd}def"), (1_800_000_000, 7, "g")]);
    }

    #[test]
    fn without_redundancy_and_with_controls() {
        let mut texts = Texts::default();
        let typed = ["x\u{8}\u{8}\u{8}y", "\u{1b}[31mred\u{1b}[0m", "\u{98}hidden\u{9c}!", "\u{7}"];
        for (number, block) in typed.iter().enumerate() {
            texts.packet((1, 7), number as u64, Wall(0), block.as_bytes(), None);
        }
        assert_eq!(text(&texts), "yred!");
        // Who types as well, later.
        texts.packet((2, 8), 5, Wall(9), b"yes", None);
        assert_eq!(text(&texts), "yred!\nyes");
    }

    #[test]
    fn memory_has_a_bound() {
        let mut texts = Texts::default();
        for index in 0..5_000 {
            texts.packet((1, 7), index, Wall(0), &[b'x'; 1_000], None);
        }
        let (lines, cut) = texts.lines();
        assert!(cut && lines[0].text.len() <= TEXT_BYTES_MAX + 1_000, "{}", lines[0].text.len());
        let mut texts = Texts::default();
        (0..100_000).for_each(|index| texts.packet((1, 7), index * 9, Wall(0), b"\n", None));
        assert!(texts.lines().1 && texts.sources[&1].lines.len() <= LINES_MAX + 2);
    }
}
