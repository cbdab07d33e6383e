//! Pins threads to cores. A list is written as in cpuset(7): `2-5,7`.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Highest core number that a CPU set of the kernel's interface names.
const CORE_MAX: usize = CpuSet::MAX_CPU - 1;

/// Text that is no list of cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected cores such as \"2-5,7\" (0 to {CORE_MAX}), found \"{found}\"")]
pub struct CoreListError {
    /// The part that does not fit.
    pub found: String,
}

/// The cores of a list, in its order; empty text is an empty list.
pub fn parse(text: &str) -> Result<Vec<usize>, CoreListError> {
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let fault = || CoreListError { found: part.chars().take(32).collect() };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| fault())?;
        let last: usize = last.trim().parse().map_err(|_| fault())?;
        if first > last || last > CORE_MAX {
            return Err(fault());
        }
        cores.extend((first..=last).filter(|core| !cores.contains(core)).collect::<Vec<_>>());
    }
    Ok(cores)
}

/// Pins the calling thread to `cores`; does nothing for an empty list.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for core in cores.iter().copied().filter(|core| *core <= CORE_MAX) {
        set.set(core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_faults_name_their_part() {
        assert_eq!(parse("2-5, 7"), Ok(vec![2, 3, 4, 5, 7]));
        assert_eq!(parse(" "), Ok(vec![]));
        assert_eq!(parse("1,0-2"), Ok(vec![1, 0, 2]));
        for bad in ["x", "5-2", "1,", "-3", "0-99999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_thread_is_pinned_to_the_core_it_asked_for() {
        std::thread::spawn(|| {
            let allowed = rustix::thread::sched_getaffinity(None).expect("own affinity");
            let core = (0..=CORE_MAX).find(|core| allowed.is_set(*core)).expect("one core");
            pin(&[core]).expect("a core we may use");
            let now = rustix::thread::sched_getaffinity(None).expect("own affinity");
            assert_eq!((now.count(), now.is_set(core)), (1, true));
        })
        .join()
        .expect("no panic");
    }
}
