//! What the machine under the attempts is going through, as far as it says so.

/// Microseconds in one of the kernel's ticks, which are hundredths of a second in what it shows.
const TICK_US: u64 = 10_000;

/// CPU time that the machine's own host has withheld from it since it started, over all cores, in
/// microseconds; 0 where that is not told.
pub(crate) fn stolen_us() -> u64 {
    std::fs::read_to_string("/proc/stat").map_or(0, |text| stolen_in(&text))
}

fn stolen_in(stat: &str) -> u64 {
    // cpu user nice system idle iowait irq softirq steal ...
    let all_cores = stat.lines().find(|line| line.starts_with("cpu "));
    let ticks = all_cores.and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    ticks.unwrap_or(0) * TICK_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_column() {
        assert_eq!(stolen_in("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), 80_000);
        assert_eq!(stolen_in("intr 5\n"), 0);
    }
}
