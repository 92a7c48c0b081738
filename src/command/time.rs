//! Times as commands give them: seconds or milliseconds, from now or since 1970.

/// The unit of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// The Unix time in milliseconds that `n` means: counted from `base` where there is one; `None` where
/// it does not fit 64 bits.
pub fn absolute_ms(n: i64, unit: TimeUnit, base: Option<u64>) -> Option<i64> {
    let ms = match unit {
        TimeUnit::Seconds => n.checked_mul(1000)?,
        TimeUnit::Milliseconds => n,
    };
    match base {
        Some(base) => ms.checked_add(i64::try_from(base).ok()?),
        None => Some(ms),
    }
}
