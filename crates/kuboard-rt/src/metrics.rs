//! The metrics registry that rooms register with, and the figures of the process itself.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts, Registry, TextEncoder};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one process. Cheap to clone; all clones are the same registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry that already knows the `process_*` metrics.
    pub fn new() -> Self {
        let registry = Registry::new();
        let registered = Process::new().and_then(|process| registry.register(Box::new(process)));
        if let Err(err) = registered {
            tracing::warn!("process metrics are missing: {err}");
        }
        Self { registry }
    }

    /// Where rooms register their metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in the Prometheus text format ([`CONTENT_TYPE`]).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(err) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!("cannot encode the metrics: {err}");
        }
        text
    }
}

/// Reads /proc/self on each scrape.
struct Process {
    cpu_seconds: Counter,
    gauges: Vec<(Field, Gauge)>,
}

#[derive(Clone, Copy)]
enum Field {
    Resident,
    Virtual,
    OpenFiles,
    MaxFiles,
    Threads,
    Start,
}

impl Process {
    fn new() -> prometheus::Result<Self> {
        let gauges = [
            (Field::Resident, "process_resident_memory_bytes", "Resident memory size in bytes."),
            (Field::Virtual, "process_virtual_memory_bytes", "Virtual memory size in bytes."),
            (Field::OpenFiles, "process_open_fds", "Number of open file descriptors."),
            (Field::MaxFiles, "process_max_fds", "Maximum number of open file descriptors."),
            (Field::Threads, "process_threads", "Number of OS threads in the process."),
            (
                Field::Start,
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
        ]
        .into_iter()
        .map(|(field, name, help)| Ok((field, Gauge::with_opts(Opts::new(name, help))?)))
        .collect::<prometheus::Result<_>>()?;
        let cpu = Opts::new(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
        );
        Ok(Self { cpu_seconds: Counter::with_opts(cpu)?, gauges })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().flat_map(|(_, gauge)| gauge.desc());
        self.cpu_seconds.desc().into_iter().chain(gauges).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let stat = Stat::parse(&read("/proc/self/stat"), sysconf(libc::_SC_CLK_TCK));
        let mut families = Vec::new();
        if let Some(stat) = &stat {
            // Two scrapes at once may see the figure in either order; it must not go back.
            self.cpu_seconds.inc_by((stat.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            families.extend(self.cpu_seconds.collect());
        }
        for (field, gauge) in &self.gauges {
            let value = match field {
                Field::Resident => {
                    stat.as_ref().map(|stat| stat.resident_pages * sysconf(libc::_SC_PAGESIZE))
                }
                Field::Virtual => stat.as_ref().map(|stat| stat.virtual_bytes),
                Field::Threads => stat.as_ref().map(|stat| stat.threads),
                Field::OpenFiles => open_files(),
                Field::MaxFiles => max_files(&read("/proc/self/limits")),
                Field::Start => boot_time(&read("/proc/stat"))
                    .zip(stat.as_ref())
                    .map(|(boot, stat)| boot + stat.started_seconds),
            };
            if let Some(value) = value {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

/// The figures of /proc/PID/stat, see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// After boot.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str, ticks_per_second: f64) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` starts with field 3 of the manual page.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks_per_second,
            threads: field(20)?,
            started_seconds: field(22)? / ticks_per_second,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn sysconf(name: libc::c_int) -> f64 {
    // SAFETY: sysconf only reads its argument and touches no memory of ours.
    let value = unsafe { libc::sysconf(name) };
    value as f64
}

fn open_files() -> Option<f64> {
    // The open folder itself is one of the entries.
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(entries.saturating_sub(1) as f64)
}

fn max_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_describes_itself() {
        let text = Metrics::new().encode();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "process_threads",
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value: f64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value >= 0.0, "{name} is {value}");
        }
    }

    #[test]
    fn clones_share_the_registry() {
        let metrics = Metrics::new();
        let counter = prometheus::IntCounter::new("pulls_total", "Pulls.").unwrap();
        metrics.clone().registry().register(Box::new(counter.clone())).unwrap();
        counter.inc();
        assert!(metrics.encode().contains("pulls_total 1"));
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 6 0 300 8192 11 1";
        let expected = Stat {
            cpu_seconds: 2.0,
            threads: 6.0,
            started_seconds: 3.0,
            virtual_bytes: 8192.0,
            resident_pages: 11.0,
        };
        assert_eq!(Stat::parse(text, 100.0), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1", 100.0), None);
    }
}
