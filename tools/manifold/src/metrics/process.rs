//! What the kernel says of this process.

use std::fs;
use std::io;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// How much of the machine this process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    pub(super) cpu_seconds: f64,
    pub(super) open_fds: u64,
    /// `None`: no limit.
    pub(super) max_fds: Option<u64>,
}

impl Process {
    /// Looks at this process.
    pub(super) fn look() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let strange = || io::Error::other("/proc/self/stat makes no sense");
        let Stat {
            ticks,
            threads,
            resident_pages,
        } = Stat::parse(&stat).ok_or_else(strange)?;
        // The folder that is being read is open itself.
        let open_fds = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64;
        Ok(Self {
            resident_bytes: resident_pages * page_size() as u64,
            threads,
            cpu_seconds: ticks as f64 / clock_ticks_per_second() as f64,
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks: u64,
    threads: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads `proc_pid_stat(5)`. The name of the program, which may hold anything, ends at the last parenthesis.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        // The first of these is the third of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_is_read_whatever_the_program_is_called() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 7 0 99 1000000 321 184 1 1 0 0 0";
        assert_eq!(
            Stat::parse(stat),
            Some(Stat {
                ticks: 200,
                threads: 7,
                resident_pages: 321,
            })
        );
        assert_eq!(Stat::parse("12 (a) S 1"), None);
        let now = Process::look().expect("this process is there");
        assert!(
            now.resident_bytes > 100_000 && now.threads > 0 && now.open_fds > 2,
            "{now:?}"
        );
    }
}
