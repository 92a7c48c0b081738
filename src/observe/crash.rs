//! The crash report: what the process did when a broken invariant or a fault ended it.
//!
//! For the server binary, which calls [`install`]; a library must not take over its host's signals.
//! From then on a panic in any thread, and the signals of a fault, write a report to the log's
//! descriptor and end the process by that signal (a panic by SIGABRT): a stopped server loses less
//! than a wrong one.
//!
//! A report is written in stages, the surest first. After a fault nothing is sure: symbols and INFO
//! allocate and take locks, which a signal handler must not do. So a fault inside a stage goes on
//! with the next one, a stage that hangs is ended by an alarm, and other threads that crash
//! meanwhile wait. The head of the report needs neither lock nor allocation.
#![allow(unsafe_code, reason = "what a thread is doing is lent to its signal handler through a raw pointer")]

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::observe::{log, system, traces};
use crate::stdx::turns::take_usual_turns;

/// The signals that mean a fault.
const FAULTS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

/// Room for a signal handler that looks up symbols.
const HANDLER_STACK_BYTES: usize = 512 << 10;

/// A stage that has not ended after this long never will.
const MOST_SECONDS: u32 = 15;

/// Writes what is known, when asked.
type Tell = dyn Fn(&mut dyn Write);

/// The same for whichever thread dies.
type TellAnywhere = dyn Fn(&mut dyn Write) + Send + Sync;

static INFO: OnceLock<Box<TellAnywhere>> = OnceLock::new();
/// The number of the thread that reports.
static OWNER: AtomicUsize = AtomicUsize::new(0);
static STAGE: AtomicU32 = AtomicU32::new(0);
static EXIT_ON_PANIC: AtomicBool = AtomicBool::new(false);

thread_local! {
    // Constant and without a destructor, so that a signal handler can read it at any time.
    static RUNNING: Cell<Option<*const Tell>> = const { Cell::new(None) };
    static PREPARED: RefCell<Prepared> = const { RefCell::new(Prepared { registered: None, stack: None }) };
}

/// What a thread has until it ends.
struct Prepared {
    // Dropped first: afterwards it is not asked any more.
    registered: Option<traces::Registered>,
    stack: Option<system::AlternateStack>,
}

/// Reports panics and faults of the whole process from now on. `info` writes what INFO would; it is
/// called by the dying thread, so it should rather leave something out than wait for a lock.
///
/// A second call changes nothing but arms the signals again.
pub fn install(info: impl Fn(&mut dyn Write) + Send + Sync + 'static) {
    if INFO.set(Box::new(info)).is_ok() {
        std::panic::set_hook(Box::new(on_panic));
    }
    prepare_thread();
    arm();
}

/// Reports faults (`crash-log-enabled yes`); [`install`] did it already.
pub fn arm() {
    system::catch(&FAULTS, on_signal);
}

/// Leaves faults to their default effect (`crash-log-enabled no`); panics are still reported.
pub fn disarm() {
    system::release(&FAULTS);
}

/// Whether a broken invariant ends the process by an exit with status 1 in place of SIGABRT (`use-exit-on-panic`).
pub fn exit_on_panic(exit: bool) {
    EXIT_ON_PANIC.store(exit, Ordering::Relaxed);
}

/// Gives the calling thread a stack on which a fault can be reported even if its own has overflowed, and makes it known to
/// [`traces`]. To be called once by every thread that runs code of ours; the memory is touched only when it is needed.
/// Whoever started it, it takes turns as long as others do.
pub fn prepare_thread() {
    take_usual_turns();
    PREPARED.with_borrow_mut(|prepared| {
        if prepared.stack.is_none() {
            prepared.stack = system::AlternateStack::set(HANDLER_STACK_BYTES);
            prepared.registered = traces::register();
        }
    });
}

/// Runs `work`, about which `tell` can say what it is (the command and its arguments) should this
/// thread crash meanwhile. Costs two stores; may be nested, then the inner one is told.
#[inline]
pub fn running<R>(tell: &dyn Fn(&mut dyn Write), work: impl FnOnce() -> R) -> R {
    struct Restore(Option<*const Tell>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RUNNING.set(self.0);
        }
    }
    let tell: *const (dyn Fn(&mut dyn Write) + '_) = tell;
    // SAFETY: only the lifetime changes. The pointer is taken back before this function ends, also
    // by a panic, and only this thread reads it, so it is not used after `tell` is gone.
    let tell = unsafe { std::mem::transmute::<*const (dyn Fn(&mut dyn Write) + '_), *const Tell>(tell) };
    let _restore = Restore(RUNNING.replace(Some(tell)));
    work()
}

/// The log's descriptor as a writer that neither locks nor allocates.
struct Paper(i32);

impl Write for Paper {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        system::write_all(self.0, text.as_bytes());
        Ok(())
    }
}

fn on_signal(signal: i32, code: i32, address: usize) {
    report(&|paper| {
        let (version, name) = (env!("CARGO_PKG_VERSION"), system::signal_name(signal));
        let pid = std::process::id();
        writeln!(paper, "Spinel {version} (process {pid}) crashed by signal: {signal} ({name}), si_code: {code}")?;
        match signal {
            // It was raised, so there is no address.
            libc::SIGABRT => Ok(()),
            _ => writeln!(paper, "Accessing address: {address:#x}"),
        }
    });
    system::release(&FAULTS);
    system::die_by(signal);
}

fn on_panic(panic: &PanicHookInfo<'_>) {
    report(&|paper| {
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied();
        let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        writeln!(paper, "=== ASSERTION FAILED ===")?;
        write!(paper, "Spinel {} (process {})", env!("CARGO_PKG_VERSION"), std::process::id())?;
        if let Some(at) = panic.location() {
            write!(paper, ", {}:{}", at.file(), at.line())?;
        }
        writeln!(paper, ": {}", said.unwrap_or("panic"))
    });
    if EXIT_ON_PANIC.load(Ordering::Relaxed) {
        std::process::exit(1);
    }
    system::release(&FAULTS);
    system::die_by(libc::SIGABRT);
}

/// Writes the report, or what is left of it: `cause` says what happened.
fn report(cause: &dyn Fn(&mut Paper) -> fmt::Result) {
    let me = system::thread_number();
    if OWNER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire).is_err_and(|owner| owner != me) {
        system::wait_for_the_end();
    }
    let mut paper = Paper(log::descriptor());
    // Nothing can be done about a descriptor that does not take the report.
    loop {
        system::die_after(MOST_SECONDS);
        let _ = match STAGE.fetch_add(1, Ordering::Relaxed) {
            0 => paper
                .write_str("\n\n=== SPINEL BUG REPORT START: please include everything from here on ===\n")
                .and_then(|()| cause(&mut paper)),
            1 => write_thread_and_command(&mut paper),
            2 => write_backtrace(&mut paper),
            3 => write_info(&mut paper),
            4 => paper.write_str("=== SPINEL BUG REPORT END ===\n"),
            _ => return,
        };
    }
}

fn write_thread_and_command(paper: &mut Paper) -> fmt::Result {
    let thread = std::thread::current();
    writeln!(paper, "\n------ CURRENT COMMAND ------\nthread: {}", thread.name().unwrap_or("unnamed"))?;
    if let Some(tell) = RUNNING.get() {
        // SAFETY: `running` is still below us on this thread's stack, for it takes the pointer back
        // before it returns; what `tell` borrows is therefore alive.
        unsafe { (*tell)(paper) };
        paper.write_str("\n")?;
    }
    Ok(())
}

fn write_backtrace(paper: &mut Paper) -> fmt::Result {
    writeln!(paper, "\n------ STACK TRACE ------\n{}\n------ STACK TRACE DONE ------", Backtrace::force_capture())
}

fn write_info(paper: &mut Paper) -> fmt::Result {
    paper.write_str("\n------ INFO OUTPUT ------\n")?;
    if let Some(info) = INFO.get() {
        info(paper);
    }
    paper.write_str("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    /// In a child: which death it is to die.
    const DEATH: &str = "SPINEL_TEST_DEATH";

    #[allow(unconditional_recursion, reason = "it is to overflow")]
    fn overflow(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 512]);
        overflow(depth + 1) + room[7]
    }

    fn die(death: &str) {
        install(|paper| {
            let _ = paper.write_str("uptime_in_seconds:7");
            if std::env::var(DEATH).is_ok_and(|death| death == "twice") {
                panic!("while reporting");
            }
        });
        let death = death.to_owned();
        let worker = std::thread::Builder::new().name("worker-3".to_owned()).spawn(move || {
            prepare_thread();
            let argument = death.clone();
            running(
                &|paper| {
                    let _ = write!(paper, "SET key {argument}");
                },
                || match death.as_str() {
                    "panic" | "twice" => panic!("the invariant does not hold"),
                    "overflow" => drop(std::hint::black_box(overflow(0))),
                    "abort" => std::process::abort(),
                    _ => system::die_by(libc::SIGSEGV),
                },
            );
        });
        let _ = worker.unwrap().join();
    }

    /// Runs this test again, as a child that dies.
    fn child(death: &str) -> (Output, String) {
        let test = ["--exact", "observe::crash::tests::a_crash_leaves_a_report_and_a_death_by_signal", "--nocapture"];
        let output = Command::new(std::env::current_exe().unwrap()).args(test).env(DEATH, death).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output, text)
    }

    #[test]
    fn a_crash_leaves_a_report_and_a_death_by_signal() {
        if let Ok(death) = std::env::var(DEATH) {
            return die(&death);
        }
        for (death, signal, words) in [
            ("segv", libc::SIGSEGV, "crashed by signal: 11 (Segmentation fault)"),
            ("overflow", libc::SIGSEGV, "crashed by signal: 11 (Segmentation fault)"),
            ("abort", libc::SIGABRT, "crashed by signal: 6 (Aborted)"),
            ("panic", libc::SIGABRT, "the invariant does not hold"),
            ("twice", libc::SIGABRT, "the invariant does not hold"),
        ] {
            let (output, text) = child(death);
            assert_eq!(output.status.signal(), Some(signal), "{death}: {text}");
            let mut rest = text.as_str();
            let parts = [
                "=== SPINEL BUG REPORT START",
                words,
                "thread: worker-3",
                &format!("SET key {death}"),
                "STACK TRACE DONE",
                "uptime_in_seconds:7",
                "=== SPINEL BUG REPORT END",
            ];
            for part in parts {
                let at = rest.find(part).unwrap_or_else(|| panic!("{death}: no {part:?} in {text}"));
                rest = &rest[at + part.len()..];
            }
            assert!(text.contains("die"), "{death}: no function of ours in the backtrace: {text}");
        }
    }

    #[test]
    fn the_innermost_work_is_told_and_afterwards_the_outer_again() {
        let told = || {
            let mut text = String::new();
            if let Some(tell) = RUNNING.get() {
                // SAFETY: called only while `running` is on the stack.
                unsafe { (*tell)(&mut text) };
            }
            text
        };
        let say = |word: &'static str| move |to: &mut dyn Write| to.write_str(word).unwrap();
        running(&say("outer"), || {
            running(&say("inner"), || assert_eq!(told(), "inner"));
            assert_eq!(told(), "outer");
        });
        assert!(RUNNING.get().is_none());
    }
}
