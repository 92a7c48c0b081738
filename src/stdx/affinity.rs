//! The cores that a thread may run on.

use rustix::thread::{CpuSet, sched_setaffinity};

/// The cores that a list names: numbers and ranges (`0-3`), those with steps too (`0-7:2`), with commas or blanks between.
/// `None` where it names none, or is no list.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let (range, step) = word.split_once(':').unwrap_or((word, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last, step): (usize, usize, usize) = (first.parse().ok()?, last.parse().ok()?, step.parse().ok()?);
        if first > last || last >= CpuSet::MAX_CPU || step == 0 {
            return None;
        }
        cores.extend((first..=last).step_by(step));
    }
    (!cores.is_empty()).then_some(cores)
}

/// Has the calling thread, and those that it starts from now on, run on the cores of a list only, where there is one. Says
/// whether that is so: the thread is left as it is where the list cannot be read, or the machine has none of its cores.
pub fn keep_to(list: Option<&[u8]>) -> bool {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return true };
    let Some(cores) = std::str::from_utf8(list).ok().and_then(parse) else { return false };
    let mut set = CpuSet::new();
    cores.into_iter().for_each(|core| set.set(core));
    sched_setaffinity(None, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn lists_are_read_as_they_are_meant() {
        assert_eq!(parse("1"), Some(vec![1]));
        assert_eq!(parse("0,2-4 7"), Some(vec![0, 2, 3, 4, 7]));
        assert_eq!(parse("0-7:3,1"), Some(vec![0, 3, 6, 1]));
        for wrong in ["", " ", "a", "-1", "3-1", "0-7:0", "0-99999", "1;2", "1-"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "there are no cores")]
    fn a_thread_keeps_to_its_cores_and_others_do_not() {
        let before = sched_getaffinity(None).unwrap();
        let Some(core) = (0..CpuSet::MAX_CPU).find(|core| before.is_set(*core)) else { return };
        let kept = std::thread::spawn(move || {
            assert!(!keep_to(Some(b"x")) && keep_to(None) && keep_to(Some(b"")));
            assert!(keep_to(Some(core.to_string().as_bytes())));
            sched_getaffinity(None).unwrap()
        });
        let kept = kept.join().unwrap();
        assert!(kept.is_set(core) && kept.count() == 1);
        assert_eq!(sched_getaffinity(None).unwrap().count(), before.count());
    }
}
