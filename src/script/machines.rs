//! The Lua machines of a server: one for each script that runs at the same time, kept for the next.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::script::cache::Cache;
use crate::script::vm::Vm;

/// How many machines are kept that nothing runs on.
const IDLE_MAX: usize = 64;

/// The machines.
#[derive(Default)]
pub struct Machines {
    /// The one that ran last is the next to run: its memory is still in the cache.
    idle: Mutex<Vec<Vm>>,
    memory: AtomicUsize,
}

/// A machine that is in use; it goes back when this is dropped.
pub struct Lease<'m> {
    machines: &'m Machines,
    vm: Option<Vm>,
    memory: usize,
}

impl Machines {
    /// A machine that knows no scripts which `cache` has forgotten.
    pub fn lease(&self, cache: &Cache) -> Lease<'_> {
        let idle = self.idle.lock().pop();
        let (mut vm, memory) = match idle {
            Some(vm) => {
                let memory = vm.memory();
                (vm, memory)
            }
            None => (Vm::new(), 0),
        };
        vm.live(cache);
        Lease { machines: self, vm: Some(vm), memory }
    }

    /// Drops what is not in use.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        self.memory.fetch_sub(idle.iter().map(Vm::memory).sum(), Ordering::Relaxed);
    }

    /// The memory that the values of all machines take, in bytes, as of the last time each ran.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }
}

impl Deref for Lease<'_> {
    type Target = Vm;
    fn deref(&self) -> &Vm {
        self.vm.as_ref().expect("a machine is there until its lease ends")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Vm {
        self.vm.as_mut().expect("a machine is there until its lease ends")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(vm) = self.vm.take() else { return };
        // A script that panicked may have left anything behind.
        let (now, kept) = if std::thread::panicking() { (0, None) } else { (vm.memory(), Some(vm)) };
        let mut idle = self.machines.idle.lock();
        match kept {
            Some(vm) if idle.len() < IDLE_MAX => {
                idle.push(vm);
                // One addition that wraps serves both directions.
                self.machines.memory.fetch_add(now.wrapping_sub(self.memory), Ordering::Relaxed);
            }
            _ => drop(self.machines.memory.fetch_sub(self.memory, Ordering::Relaxed)),
        }
    }
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machines({} idle)", self.idle.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_comes_back_and_its_memory_is_counted_once() {
        let (machines, cache) = (Machines::default(), Cache::default());
        assert_eq!(machines.memory(), 0);
        drop(machines.lease(&cache));
        let one = machines.memory();
        assert!(one > 10_000);
        drop(machines.lease(&cache));
        assert_eq!(machines.memory(), one);
        let (a, b) = (machines.lease(&cache), machines.lease(&cache));
        drop((a, b));
        assert!(machines.memory() > one);
        machines.clear();
        assert_eq!(machines.memory(), 0);
    }
}
