//! TLS sessions that clients may take up again: so many, and for so long.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

/// The sessions that are remembered; the oldest goes first.
#[derive(Debug)]
pub struct Sessions {
    kept: Mutex<Kept>,
    most: usize,
    seconds: u64,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<Vec<u8>, (Vec<u8>, Instant)>,
    order: VecDeque<Vec<u8>>,
}

/// Where there is no limit, this is one.
const MOST: usize = 1 << 20;

/// The order may have so many more entries than there are sessions twice over: those of sessions that were taken.
const SPARE: usize = 16;

impl Sessions {
    /// None yet; at most `most` of them, 0 for any number, each for so many seconds.
    pub fn new(most: usize, seconds: u64) -> Sessions {
        let most = if most == 0 { MOST } else { most.min(MOST) };
        Sessions { kept: Mutex::default(), most, seconds }
    }

    fn is_old(&self, since: Instant) -> bool {
        since.elapsed() >= Duration::from_secs(self.seconds)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        while let Some(oldest) = kept.order.front() {
            let goes = kept.sessions.get(oldest).is_none_or(|(_, since)| self.is_old(*since));
            if !goes && kept.sessions.len() < self.most {
                break;
            }
            kept.sessions.remove(oldest);
            kept.order.pop_front();
        }
        if kept.order.len() > 2 * kept.sessions.len() + SPARE {
            kept.order.retain(|key| kept.sessions.contains_key(key));
        }
        if kept.sessions.insert(key.clone(), (value, Instant::now())).is_none() {
            kept.order.push_back(key);
        }
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        let (value, since) = kept.sessions.get(key)?;
        (!self.is_old(*since)).then(|| value.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock();
        let (value, since) = kept.sessions.remove(key)?;
        (!self.is_old(since)).then_some(value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_sessions_are_kept_as_there_is_room_for() {
        let sessions = Sessions::new(2, 100);
        for n in 0..3u8 {
            assert!(sessions.put(vec![n], vec![n, n]));
        }
        assert_eq!((sessions.get(&[0]), sessions.get(&[1])), (None, Some(vec![1, 1])));
        assert_eq!(sessions.take(&[1]), Some(vec![1, 1]));
        assert_eq!(sessions.take(&[1]), None, "it was taken");
        for n in 3..100u8 {
            sessions.put(vec![n], vec![n]);
            sessions.take(&[n]);
        }
        assert!(sessions.kept.lock().order.len() <= 20, "what was taken is forgotten");
        assert_eq!(sessions.get(&[2]), Some(vec![2, 2]), "what was taken did not push it out");
    }

    #[test]
    fn a_session_is_kept_for_its_time() {
        let sessions = Sessions::new(0, 0);
        sessions.put(vec![1], vec![1]);
        assert_eq!((sessions.get(&[1]), sessions.take(&[1])), (None, None));
    }
}
