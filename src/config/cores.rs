//! Lists of cores, written `2-5` or `2,4,6-7`.

/// Highest core number taken: the kernel's own `CPU_SETSIZE` is 1,024.
const CORE_MAX: u16 = 1_023;

/// The cores named by `text`, in the order written; empty for an empty text.
///
/// Fails with expected/found in words.
pub fn parse(text: &str) -> Result<Vec<u16>, String> {
    let fault = || format!("expected cores such as \"2-5\" or \"2,4\", found \"{text}\"");
    let number = |part: &str| {
        part.trim().parse::<u16>().ok().filter(|core| *core <= CORE_MAX).ok_or_else(fault)
    };
    let mut cores = Vec::new();
    if text.trim().is_empty() {
        return Ok(cores);
    }
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(fault());
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("core {core} is named twice in \"{text}\""));
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// Writes `cores` as a list in rising order, `0-3,8`; `none` for no core.
pub fn text(cores: &[u16]) -> String {
    let mut rising = cores.to_vec();
    rising.sort_unstable();
    rising.dedup();
    let runs = rising.chunk_by(|one, next| one + 1 == *next);
    let run = |run: &[u16]| match run {
        [only] => only.to_string(),
        [first, second] => format!("{first},{second}"),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    let text = runs.map(run).collect::<Vec<_>>().join(",");
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(text(&[8, 0, 1, 2, 3, 10, 11]), "0-3,8,10,11");
        assert_eq!(parse(&text(&[8, 0, 1, 2, 3])), Ok(vec![0, 1, 2, 3, 8]));
        assert_eq!(text(&[]), "none");
    }

    #[test]
    fn takes_numbers_and_ranges_and_nothing_else() {
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("2-4, 7"), Ok(vec![2, 3, 4, 7]));
        for wrong in ["a", "3-1", "1,,2", "1,1", "-", "9999", "1-"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
