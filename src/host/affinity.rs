//! Pins threads to cores.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Highest core number that a CPU set of the kernel's interface names.
const CORE_MAX: u16 = (CpuSet::MAX_CPU - 1) as u16;

/// Pins the calling thread to `cores`, and what it starts from then on; does nothing for an empty list.
pub fn pin(cores: &[u16]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    Ok(sched_setaffinity(None, &set(cores.iter().copied()))?)
}

/// Cores that the calling thread may run on now.
pub fn own() -> Vec<u16> {
    sched_getaffinity(None).map(|set| cores(&set)).unwrap_or_default()
}

/// Cores that threads of ours may be pinned to: all that are online and in our cpuset. That is more than
/// [`own`] where cores are isolated, or whoever started us left some out.
///
/// The kernel cuts what is asked for down to what is allowed, so a thread that asks for all of them hears
/// the answer, and need not go anywhere for it.
pub fn permitted() -> Vec<u16> {
    let ask = || {
        sched_setaffinity(None, &set(0..=CORE_MAX)).ok()?;
        Some(own())
    };
    std::thread::spawn(ask).join().ok().flatten().unwrap_or_else(own)
}

/// Does `work` on `core`, so that memory that it touches first is the near one of that core (the kernel's
/// default), and comes back. Best effort: without a core, or where it may not go there, it stays.
pub fn beside<R>(core: Option<u16>, work: impl FnOnce() -> R) -> R {
    let before = core.and_then(|core| {
        let before = sched_getaffinity(None).ok()?;
        pin(&[core]).ok().map(|()| before)
    });
    let result = work();
    if let Some(before) = before {
        // It was allowed a moment ago; where it is no more, staying harms nobody.
        let _ = sched_setaffinity(None, &before);
    }
    result
}

fn set(cores: impl Iterator<Item = u16>) -> CpuSet {
    let mut set = CpuSet::new();
    cores.filter(|core| *core <= CORE_MAX).for_each(|core| set.set(core.into()));
    set
}

fn cores(set: &CpuSet) -> Vec<u16> {
    (0..=CORE_MAX).filter(|core| set.is_set(usize::from(*core))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_to_the_core_it_asked_for() {
        std::thread::spawn(|| {
            let core = own()[0];
            pin(&[core]).expect("a core we may use");
            assert_eq!(own(), [core]);
            pin(&[]).expect("nothing to do");
            assert_eq!(own(), [core]);
            // What we may be pinned to does not depend on what we are.
            assert!(permitted().contains(&core));
            assert_eq!(own(), [core]);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn work_beside_a_core_is_done_there_and_nothing_after_it() {
        let before = own();
        let last = *before.last().expect("a core");
        assert_eq!(beside(Some(last), own), [last]);
        assert_eq!(own(), before);
        // A core that nobody has: the work is done all the same.
        assert_eq!(beside(Some(CORE_MAX), own), before);
        assert_eq!(beside(None, own), before);
    }
}
