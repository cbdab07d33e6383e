//! Shared memory: memfds that outlive the process, mapped. Owns every pointer into them; what leaves
//! is values, copies, and slices for the length of a closure.
#![expect(unsafe_code, reason = "shared memory has no safe form: other processes hold it too")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use crate::base::ports::{Region, WritableRegion};

const PAGE_BYTES: usize = 4_096;
/// Pages are given back in pieces of this size: one call, and one interrupt to other cores, for
/// 10,000 packets. Divides every ring.
pub const RELEASE_BYTES: u64 = 2 << 20;

/// Makes a memfd of exactly `bytes` zero bytes, closed on exec and sealed against changing its
/// size: no map of it can ever raise SIGBUS.
pub fn create(name: &str, bytes: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(name, flags)?;
    rustix::fs::ftruncate(&fd, bytes as u64)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Makes the memory of `bytes` at `offset` of a memfd be there, without mapping it.
pub fn allocate(fd: BorrowedFd<'_>, offset: u64, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(fd, FallocateFlags::empty(), offset, bytes)?)
}

/// Whether all the memory of `bytes` of a memfd is there.
pub fn is_allocated(fd: BorrowedFd<'_>, bytes: u64) -> bool {
    // Blocks of 512 bytes (stat(2)).
    rustix::fs::fstat(fd).is_ok_and(|found| found.st_blocks as u64 * 512 >= bytes)
}

/// One mapped memfd. Drop unmaps; the memory lives on while any descriptor or map of it does.
///
/// Word access is atomic. Byte access is not: whoever writes bytes publishes them by a word stored
/// afterwards, and whoever reads them loads that word first (the tail, the durable watermark).
pub struct Mapped {
    /// Start and length of `map`, kept here because every access to a word asks for them.
    start: *mut u8,
    length: usize,
    map: Arc<MmapRaw>,
}

// SAFETY: `start` points into `map`, which is `Send` and `Sync` itself and lives as long as `self`;
// every access goes through methods whose rules hold on any thread.
// JUSTIFICATION: a raw pointer takes both traits away from a type that has them by its content.
unsafe impl Send for Mapped {}
// SAFETY: as above.
// JUSTIFICATION: as above.
unsafe impl Sync for Mapped {}

/// A memfd mapped for whoever only looks. A type of its own: the map would fault on any store, and this
/// has no method that makes one.
pub struct Looked(Mapped);

impl Looked {
    /// As [`Mapped::map`], of a descriptor that need not permit writing.
    pub fn map(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let map = |options: &MmapOptions, file: &File| options.map_raw_read_only(file);
        Ok(Looked(Mapped::map_by(fd, bytes, map)?))
    }

    /// As [`Region::load`].
    pub fn load(&self, offset: usize) -> u64 {
        self.0.load(offset)
    }

    /// As [`Region::copy_out`]: bytes that a writer changes meanwhile come out torn.
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) {
        self.0.copy_out(offset, out);
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Another description of the same memfd through which nobody can write, nor map it for writing.
pub fn reopen_to_look(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?.into())
}

/// The pages of a map, for a helper thread: it readies and gives back what others write and read.
/// Keeps the map alive.
pub struct Pages {
    map: Arc<MmapRaw>,
}

impl Mapped {
    /// Maps `bytes` of `fd`. `InvalidData` where the memfd has another size, or may still shrink.
    pub fn map(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map_by(fd, bytes, |options, file| options.map_raw(file))
    }

    fn map_by(
        fd: BorrowedFd<'_>,
        bytes: usize,
        map: impl FnOnce(&MmapOptions, &File) -> io::Result<MmapRaw>,
    ) -> io::Result<Self> {
        let fault = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let found = rustix::fs::fstat(fd)?.st_size;
        if bytes == 0 || found != bytes as i64 {
            return Err(fault(format!("shared memory of {found} bytes, expected {bytes}")));
        }
        if !rustix::fs::fcntl_get_seals(fd)?.contains(SealFlags::SHRINK) {
            return Err(fault("shared memory is not sealed against shrinking".to_owned()));
        }
        let map = map(MmapOptions::new().len(bytes), &File::from(fd.try_clone_to_owned()?))?;
        // Keys and speech stay out of core dumps. Best effort: an old kernel may not know it.
        let _ = map.advise(Advice::DontDump);
        let map = Arc::new(map);
        Ok(Mapped { start: map.as_mut_ptr(), length: map.len(), map })
    }

    /// Maps `bytes` at `offset` of what is memory of the kernel, shared by a descriptor of its own: rings, or
    /// the words of a BPF program. It has the size it has for as long as the map is there.
    pub fn of_kernel(fd: BorrowedFd<'_>, offset: u64, bytes: usize) -> io::Result<Self> {
        let options = MmapOptions::new().offset(offset).len(bytes).populate().to_owned();
        let map = Arc::new(options.map_raw(&fd)?);
        Ok(Mapped { start: map.as_mut_ptr(), length: map.len(), map })
    }

    /// Makes a memfd and maps it: for a process that keeps its memory to itself, and for tests.
    pub fn anonymous(name: &str, bytes: usize) -> io::Result<Self> {
        Self::map(create(name, bytes)?.as_fd(), bytes)
    }

    /// Maps `length` bytes at `offset`, so that later stores do not fault. Both are rounded to pages;
    /// what lies behind the end is left out.
    pub fn populate(&self, offset: usize, length: usize) -> io::Result<()> {
        populate(&self.map, offset, length)
    }

    /// The same map once more: for threads of one process, which then pays for its pages once.
    pub fn share(&self) -> Self {
        Mapped { start: self.start, length: self.length, map: Arc::clone(&self.map) }
    }

    /// Its pages, for a helper thread.
    pub fn pages(&self) -> Pages {
        Pages { map: Arc::clone(&self.map) }
    }

    /// Keeps the pages from being swapped out. Fails where RLIMIT_MEMLOCK is too low (F75).
    pub fn lock(&self) -> io::Result<()> {
        self.map.lock()
    }

    /// Where `length` bytes at `offset` begin. Panics where they do not all lie in the map.
    #[inline]
    pub(super) fn at(&self, offset: usize, length: usize) -> *mut u8 {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            leaves(offset, length);
        }
        // SAFETY: `offset` ≤ the map's length, checked in the lines above, so that the pointer stays
        // in the same allocation (or one past its end, where length is 0).
        // JUSTIFICATION: raw pointers are the only way to name memory that others write too.
        unsafe { self.start.add(offset) }
    }

    /// The half word at `offset`, as [`Region::load`]: the indexes of the kernel's rings are such.
    #[inline]
    pub fn load_half(&self, offset: usize) -> u32 {
        self.half(offset).load(Ordering::Acquire)
    }

    /// Stores it, as [`Region::store`].
    #[inline]
    pub fn store_half(&self, offset: usize, value: u32) {
        self.half(offset).store(value, Ordering::Release);
    }

    #[inline]
    fn half(&self, offset: usize) -> &AtomicU32 {
        if !offset.is_multiple_of(4) {
            misaligned(offset);
        }
        let half = self.at(offset, 4).cast::<u32>();
        // SAFETY: as for `word`, with 4 bytes.
        // JUSTIFICATION: as for `word`.
        unsafe { AtomicU32::from_ptr(half) }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        if !offset.is_multiple_of(8) {
            misaligned(offset);
        }
        let word = self.at(offset, 8).cast::<u64>();
        // SAFETY: in bounds by `at`, aligned (maps start at a page, the offset is a multiple of 8),
        // mapped for as long as `self` is borrowed, and only accessed as an atomic while shared.
        // JUSTIFICATION: the words of the commit protocol are read by other threads and processes.
        unsafe { AtomicU64::from_ptr(word) }
    }
}

/// Apart, so that what each packet asks for dozens of times stays a comparison and a load.
#[cold]
#[inline(never)]
fn leaves(offset: usize, length: usize) -> ! {
    panic!("{length} bytes at {offset} leave the map");
}

/// As above.
#[cold]
#[inline(never)]
fn misaligned(offset: usize) -> ! {
    panic!("word offset {offset} is not aligned");
}

fn populate(map: &MmapRaw, offset: usize, length: usize) -> io::Result<()> {
    let first = offset.min(map.len()) / PAGE_BYTES * PAGE_BYTES;
    let length = (offset.saturating_add(length).min(map.len())).saturating_sub(first);
    if length == 0 {
        return Ok(());
    }
    // For reading: pages of a memfd that are mapped so can be written as well, since nobody has to
    // know when one becomes dirty, and the kernel maps 16 with one fault.
    match map.advise_range(Advice::PopulateRead, first, length) {
        // Kernels before 5.14 do not know it; the first touch of each page then faults.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

impl Pages {
    /// As [`Mapped::populate`].
    pub fn populate(&self, offset: usize, length: usize) -> io::Result<()> {
        populate(&self.map, offset, length)
    }

    /// Takes the pages between two positions of a ring that fills this map out of the map, in
    /// pieces of [`RELEASE_BYTES`]; the position up to which it has. Their content stays in the
    /// memfd: whoever touches one again only faults.
    pub fn release_between(&self, from: u64, to: u64) -> u64 {
        let ring_bytes = self.map.len() as u64;
        // Further behind than the ring is long: the same pages again.
        let mut at =
            from.max(to.saturating_sub(ring_bytes)).div_ceil(RELEASE_BYTES) * RELEASE_BYTES;
        // The piece that holds `to` is in use, as is the one before it for whoever looks back.
        while at + 2 * RELEASE_BYTES <= to {
            let place = (at % ring_bytes) as usize;
            let length = (RELEASE_BYTES as usize).min(self.map.len() - place);
            // SAFETY: the map is shared and backed by a memfd, for which MADV_DONTNEED only drops
            // page table entries (madvise(2)): the bytes are the same for every later access.
            // JUSTIFICATION: the crate marks it as unsafe because private maps lose their content.
            let advised = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, place, length)
            };
            if advised.is_err() {
                // Locked pages stay; so be it.
                break;
            }
            at += RELEASE_BYTES;
        }
        at
    }
}

impl Region for Mapped {
    #[inline]
    fn bytes(&self) -> usize {
        self.length
    }

    #[inline]
    fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }

    #[inline]
    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let target = self.at(offset, bytes.len());
        // SAFETY: the target lies in the map (`at`); `bytes` is a borrow of ordinary memory, which
        // cannot overlap it, since no reference into the map leaves this file.
        // JUSTIFICATION: a slice over memory that another process may read would claim too much.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }

    #[inline]
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        let source = self.at(offset, out.len());
        // SAFETY: as in `copy_in`, the other way. Bytes that a writer changes meanwhile come out
        // torn, never out of bounds; readers ask the watermark first and records carry a checksum.
        // JUSTIFICATION: as in `copy_in`.
        unsafe { std::ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len()) };
    }
}

impl WritableRegion for Mapped {
    #[inline]
    fn with_mut<R>(
        &mut self,
        offset: usize,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let start = self.at(offset, length);
        // SAFETY: in bounds (`at`), initialised (a memfd is zeros at first), and ours alone: `&mut
        // self` keeps this holder's other methods out for the closure, and other holders, of this
        // map or another one, do not look above the published tail, which is where a writer builds.
        // JUSTIFICATION: decryption writes straight into the record; a bounce buffer would cost a
        // second copy of every packet.
        fill(unsafe { std::slice::from_raw_parts_mut(start, length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_map_writes_the_other_reads() {
        let fd = create("two maps", 8192).expect("memfd");
        let mut first = Mapped::map(fd.as_fd(), 8192).expect("right size");
        let second = Mapped::map(fd.as_fd(), 8192).expect("right size");
        first.populate(0, 8192).expect("populate");
        first.copy_in(100, b"bytes");
        first.with_mut(200, 3, |out| out.copy_from_slice(b"abc"));
        first.store(8184, 42);
        let mut out = [0; 5];
        second.copy_out(100, &mut out);
        assert_eq!(&out, b"bytes");
        second.copy_out(200, &mut out[..3]);
        assert_eq!((&out[..3], second.load(8184), second.bytes()), (&b"abc"[..], 42, 8192));
    }

    #[test]
    fn who_only_looks_sees_what_is_written_and_cannot_write() {
        let fd = create("looked at", 8192).expect("memfd");
        let map = Mapped::map(fd.as_fd(), 8192).expect("right size");
        let again = reopen_to_look(fd.as_fd()).expect("procfs");
        let looked = Looked::map(again.as_fd(), 8192).expect("right size");
        map.copy_in(100, b"bytes");
        map.store(8184, 42);
        let mut out = [0; 5];
        looked.copy_out(100, &mut out);
        assert_eq!((&out, looked.load(8184), looked.bytes()), (b"bytes", 42, 8192));
        assert!(Mapped::map(again.as_fd(), 8192).is_err(), "it cannot be mapped for writing");
        assert!(rustix::io::pwrite(&again, b"x", 0).is_err(), "nor written");
    }

    #[test]
    fn released_pages_keep_their_content() {
        let bytes = 4 * RELEASE_BYTES as usize;
        let map = Mapped::anonymous("ring", bytes).expect("memfd");
        for place in 0..4 {
            map.store(place * RELEASE_BYTES as usize, place as u64 + 1);
        }
        let pages = map.pages();
        // Position 5 pieces: the ring has wrapped once.
        assert_eq!(pages.release_between(0, 5 * RELEASE_BYTES), 4 * RELEASE_BYTES);
        assert_eq!(pages.release_between(4 * RELEASE_BYTES, 5 * RELEASE_BYTES), 4 * RELEASE_BYTES);
        pages.populate(0, bytes).expect("populate");
        for place in 0..4 {
            assert_eq!(map.load(place * RELEASE_BYTES as usize), place as u64 + 1);
        }
    }

    #[test]
    fn memory_is_there_once_it_was_allocated() {
        let fd = create("allocated", 3 * 4_096).expect("memfd");
        assert!(!is_allocated(fd.as_fd(), 3 * 4_096));
        allocate(fd.as_fd(), 0, 2 * 4_096).expect("memory");
        assert!(!is_allocated(fd.as_fd(), 3 * 4_096));
        allocate(fd.as_fd(), 0, 3 * 4_096).expect("memory");
        assert!(is_allocated(fd.as_fd(), 3 * 4_096));
    }

    #[test]
    fn another_size_and_an_unsealed_memfd_are_refused() {
        let fd = create("size", 4096).expect("memfd");
        assert!(Mapped::map(fd.as_fd(), 8192).is_err());
        assert!(rustix::fs::ftruncate(&fd, 1).is_err(), "sealed against shrinking");
        let open = rustix::fs::memfd_create("open", MemfdFlags::CLOEXEC).expect("memfd");
        rustix::fs::ftruncate(&open, 4096).expect("no seal");
        assert!(Mapped::map(open.as_fd(), 4096).is_err());
    }

    #[test]
    #[should_panic(expected = "leave the map")]
    fn a_word_behind_the_end_panics() {
        Mapped::anonymous("short", 4096).expect("memfd").load(4096);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn a_misaligned_word_panics() {
        Mapped::anonymous("odd", 4096).expect("memfd").load(4);
    }
}
