//! Byte strings that live for hours, side by side in large pieces of memory: of their own, each would
//! keep a page of the heap that what was made and dropped around it has left. For the same reason a list of
//! them has no memory but theirs.

/// Bytes of a page; a longer string has one of its own.
const PAGE_BYTES: usize = 256 << 10;

/// Where a string lies. It belongs to one owner, who gives it back.
#[derive(Debug)]
pub(super) struct Piece {
    page: u32,
    at: u32,
    bytes: u32,
}

impl Piece {
    const BYTES: usize = 12;

    fn emit(&self) -> [u8; Self::BYTES] {
        let words = [self.page, self.at, self.bytes].map(u32::to_le_bytes);
        *words.concat().first_chunk().expect("three words")
    }

    fn read(bytes: [u8; Self::BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Piece { page: word(0), at: word(4), bytes: word(8) }
    }
}

/// Strings that were put one after another: the last one, each behind the place of the one before it; the
/// first behind that of an empty one.
#[derive(Debug, Default)]
pub(super) struct Chain(Option<Piece>);

/// The strings.
#[derive(Debug, Default)]
pub(super) struct Slab {
    pages: Vec<Page>,
    /// Places of pages that are gone.
    vacant: Vec<u32>,
    /// The page that takes the next string.
    open: Option<u32>,
    held: usize,
    live: usize,
}

#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
    live: usize,
}

impl Slab {
    /// Keeps a string, at most 4 GiB.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Piece {
        let is_roomy = |page: &Page| page.bytes.capacity() - page.bytes.len() >= bytes.len();
        let page = match self.open {
            Some(page) if is_roomy(&self.pages[page as usize]) => page,
            _ => self.make_page(bytes.len()),
        };
        let place = &mut self.pages[page as usize];
        let at = place.bytes.len() as u32;
        place.bytes.extend_from_slice(bytes);
        place.live += bytes.len();
        self.live += bytes.len();
        Piece { page, at, bytes: bytes.len() as u32 }
    }

    fn make_page(&mut self, least: usize) -> u32 {
        let bytes = Vec::with_capacity(least.max(PAGE_BYTES));
        self.held += bytes.capacity();
        let page = Page { bytes, live: 0 };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.pages[place as usize] = page;
                place
            }
            None => {
                self.pages.push(page);
                self.pages.len() as u32 - 1
            }
        };
        // Until it is full: a long string's own page is, at once.
        if let Some(before) = self.open.replace(place) {
            self.drop_dead(before);
        }
        place
    }

    /// The string.
    pub(super) fn get(&self, piece: &Piece) -> &[u8] {
        if piece.bytes == 0 {
            return &[];
        }
        &self.pages[piece.page as usize].bytes[piece.at as usize..][..piece.bytes as usize]
    }

    /// Takes it back.
    pub(super) fn remove(&mut self, piece: Piece) {
        let Piece { page, bytes, .. } = piece;
        self.pages[page as usize].live -= bytes as usize;
        self.live -= bytes as usize;
        if self.open != Some(page) {
            self.drop_dead(page);
        }
    }

    /// Gives a page back in which nothing lives.
    fn drop_dead(&mut self, place: u32) {
        let page = &mut self.pages[place as usize];
        if page.live == 0 && page.bytes.capacity() > 0 {
            self.held -= page.bytes.capacity();
            *page = Page::default();
            self.vacant.push(place);
        }
    }

    /// Whether most of its memory is of strings that are gone: then its owner puts all of them anew.
    pub(super) fn is_sparse(&self) -> bool {
        self.held > 2 * self.live + 2 * PAGE_BYTES
    }

    /// Puts a string that lies here once more, behind the newest.
    pub(super) fn renew(&mut self, piece: &mut Piece) {
        let bytes = self.get(piece).to_vec();
        let old = std::mem::replace(piece, self.put(&bytes));
        self.remove(old);
    }

    /// Puts a string behind those of a chain.
    pub(super) fn push(&mut self, chain: &mut Chain, bytes: &[u8]) {
        let none = Piece { page: 0, at: 0, bytes: 0 };
        let before = chain.0.as_ref().unwrap_or(&none).emit();
        chain.0 = Some(self.put(&[&before, bytes].concat()));
    }

    /// The strings of a chain, the last one first.
    pub(super) fn strings<'a>(&'a self, chain: &'a Chain) -> impl Iterator<Item = &'a [u8]> {
        let mut next = chain.0.as_ref().map(|piece| self.get(piece));
        std::iter::from_fn(move || {
            let (before, string) = next?.split_first_chunk()?;
            let before = Piece::read(*before);
            next = (before.bytes > 0).then(|| self.get(&before));
            Some(string)
        })
    }

    /// Takes a chain back.
    pub(super) fn remove_chain(&mut self, chain: Chain) {
        let mut next = chain.0;
        while let Some(piece) = next {
            let before = self.get(&piece).first_chunk().map(|before| Piece::read(*before));
            self.remove(piece);
            next = before.filter(|before| before.bytes > 0);
        }
    }

    /// Puts a chain once more, behind the newest.
    pub(super) fn renew_chain(&mut self, chain: &mut Chain) {
        let mut strings: Vec<Vec<u8>> = self.strings(chain).map(<[u8]>::to_vec).collect();
        strings.reverse();
        self.remove_chain(std::mem::take(chain));
        strings.iter().for_each(|string| self.push(chain, string));
    }

    /// Bytes of memory, and of strings in it.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.held, self.live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn a_chain_keeps_its_strings_in_order() {
        let mut slab = Slab::default();
        let mut chains: Vec<(Chain, Vec<Vec<u8>>)> = Vec::new();
        chains.resize_with(40, Default::default);
        let mut random = Prng::new(3);
        for round in 0..2_000 {
            let (chain, strings) = &mut chains[random.below(40) as usize];
            let string = vec![round as u8; random.below(3_000) as usize];
            slab.push(chain, &string);
            strings.push(string);
        }
        let wrong = |slab: &Slab, chains: &[(Chain, Vec<Vec<u8>>)]| {
            chains.iter().any(|(chain, strings)| !slab.strings(chain).eq(strings.iter().rev()))
        };
        assert!(!wrong(&slab, &chains));
        chains.iter_mut().for_each(|(chain, _)| slab.renew_chain(chain));
        assert!(!wrong(&slab, &chains));
        chains.into_iter().for_each(|(chain, _)| slab.remove_chain(chain));
        assert_eq!(slab.bytes().1, 0);
        assert_eq!(slab.strings(&Chain::default()).count(), 0);
    }

    #[test]
    fn what_is_put_is_there_until_it_is_taken_back_and_memory_follows() {
        let mut random = Prng::new(0x51ab);
        let (mut slab, mut model) = (Slab::default(), Vec::<(Piece, Vec<u8>)>::new());
        let mut most = 0;
        for round in 0..20_000 {
            let grows = round % 8_000 < 4_000;
            if random.below(10) < if grows { 7 } else { 3 } {
                let length = match random.below(200) {
                    0 => PAGE_BYTES + 1,
                    1 => 0,
                    _ => random.below(4_000) as usize,
                };
                let bytes = vec![random.next_u64() as u8; length];
                model.push((slab.put(&bytes), bytes));
            } else if !model.is_empty() {
                let (piece, bytes) = model.swap_remove(random.below(model.len() as u64) as usize);
                assert_eq!(slab.get(&piece), bytes);
                slab.remove(piece);
            }
            if slab.is_sparse() {
                model.iter_mut().for_each(|(piece, _)| slab.renew(piece));
                assert!(!slab.is_sparse());
            }
            let (held, live) = slab.bytes();
            assert_eq!(live, model.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
            assert!(held <= 2 * live + 2 * PAGE_BYTES, "{held} for {live}");
            most = most.max(live);
        }
        assert!(most > 8 * PAGE_BYTES, "more than a few pages: {most}");
        assert!(model.iter().all(|(piece, bytes)| slab.get(piece) == bytes));
        model.into_iter().for_each(|(piece, _)| slab.remove(piece));
        let (held, live) = slab.bytes();
        assert_eq!(live, 0);
        assert!(held <= PAGE_BYTES + 1, "the open page alone: {held}");
    }
}
