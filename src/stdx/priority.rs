//! Threads that let others go first.

use rustix::process::setpriority_process;

/// The steps by which a background thread stands behind others. Each is worth a tenth of the time where there are more
/// threads than cores.
const BEHIND: i32 = 10;

/// Has the calling thread get less time than others where they want all there is. Not to be called by one that others
/// wait for.
pub fn stand_back() {
    // On Linux the priority of a process is that of a thread. Refused, it is as important as the others.
    let _ = setpriority_process(None, BEHIND);
}
