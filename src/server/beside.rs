//! A thread beside the workers, which ends when nobody wants it any more.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::command::engine::{Engine, ShutdownRequest};
use crate::observe::crash;

/// The thread; dropped, it ends, and is waited for.
pub struct Beside {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Starts a thread by this name. It is to return soon after it was told to stop, and is unparked then. Where it panics the
    /// server ends: without it, it is no longer what others take it for.
    ///
    /// # Errors
    /// Where the system refuses another thread.
    pub fn start(
        name: &str,
        engine: Arc<Engine>,
        run: impl FnOnce(&Arc<Engine>, &AtomicBool) + Send + 'static,
    ) -> io::Result<Beside> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            crash::prepare_thread();
            if catch_unwind(AssertUnwindSafe(|| run(&engine, &asked))).is_err() {
                // What is in memory may be wrong by now. An error means that the server ends already.
                let _ = engine.host.shutdown(ShutdownRequest {
                    nosave: true,
                    now: true,
                    force: true,
                    ..Default::default()
                });
            }
        })?;
        Ok(Beside { stop, thread: Some(thread) })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic.
            let _ = thread.join();
        }
    }
}
