//! Numbers in words. The script has the same functions; `tests/units.txt` holds both to the same words. The command line
//! writes sizes with [`size`], too: the same model has the same size everywhere.

/// A time span in its two largest units: `59 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => two((hours, "h"), (minutes % 60, "min")),
        _ => two((days, "d"), (hours % 24, "h")),
    }
}

fn two(large: (u64, &str), small: (u64, &str)) -> String {
    let large = format!("{} {}", large.0, large.1);
    match small {
        (0, _) => large,
        (count, unit) => format!("{large} {count} {unit}"),
    }
}

/// Bytes in the largest binary unit that fits: GiB with one decimal, the smaller ones whole.
pub fn size(bytes: u64) -> String {
    let (kibibytes, mebibytes) = (bytes >> 10, bytes >> 20);
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ if kibibytes < 1024 => format!("{kibibytes} KiB"),
        _ if mebibytes < 1024 => format!("{mebibytes} MiB"),
        _ => format!("{:.1} GiB", (mebibytes as f64 / 102.4).round() / 10.0),
    }
}

/// Tokens per second: one decimal below ten, where it matters; a dash before anything was measured.
pub(crate) fn speed(tokens_per_second: f64) -> String {
    match tokens_per_second {
        none if none <= 0.0 => "–".into(),
        slow if slow < 9.95 => format!("{:.1} tokens/s", (slow * 10.0).round() / 10.0),
        fast => format!("{} tokens/s", fast.round()),
    }
}

/// A fraction in percent.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{} %", (fraction * 100.0).round())
}
