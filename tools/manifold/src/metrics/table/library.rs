//! The part of the table that is about the library as a whole: the daemon, its mount, its cache.

use super::{NONE, counter, gauge, histogram, seconds, waiting};
use crate::metrics::Metric;

pub(super) const DAEMON: &[Metric] = &[
    gauge(
        "manifold_build_info",
        &["version"],
        "Always 1; the version of the daemon.",
        |_, out| {
            out.add(&[env!("CARGO_PKG_VERSION")], 1);
        },
    ),
    gauge(
        "manifold_library_info",
        &["library", "point"],
        "Always 1; the library, and where it is mounted.",
        |all, out| {
            out.add(&[&all.library, &all.mount.point], 1);
        },
    ),
    gauge(
        "manifold_start_time_seconds",
        NONE,
        "When the daemon started, since 1970 UTC.",
        |all, out| {
            out.add(NONE, seconds(all.mount.started_ns));
        },
    ),
    counter(
        "manifold_mounts_given_up_total",
        NONE,
        "Times the mount was made anew, because a request outlived twice its deadline.",
        |all, out| {
            out.add(NONE, all.mount.given_up);
        },
    ),
    gauge(
        "manifold_process_resident_memory_bytes",
        NONE,
        "Memory that the daemon occupies.",
        |all, out| {
            out.add(NONE, all.process.resident_bytes);
        },
    ),
    counter(
        "manifold_process_cpu_seconds_total",
        NONE,
        "Processor time that the daemon has taken.",
        |all, out| {
            out.add(NONE, all.process.cpu_seconds);
        },
    ),
    gauge(
        "manifold_process_threads",
        NONE,
        "Threads of the daemon.",
        |all, out| {
            out.add(NONE, all.process.threads);
        },
    ),
    gauge(
        "manifold_process_open_fds",
        NONE,
        "Open file descriptors of the daemon.",
        |all, out| {
            out.add(NONE, all.process.open_fds);
        },
    ),
    gauge(
        "manifold_process_max_fds",
        NONE,
        "The most that they may be; no sample where there is no limit.",
        |all, out| {
            if let Some(limit) = all.process.max_fds {
                out.add(NONE, limit);
            }
        },
    ),
];

pub(super) const KERNEL: &[Metric] = &[
    counter(
        "manifold_kernel_requests_total",
        &["operation"],
        "Requests of the kernel to the file system, by FUSE operation.",
        |all, out| {
            for it in &all.mount.operations {
                out.add(&[it.operation], it.begun);
            }
        },
    ),
    counter(
        "manifold_kernel_requests_waited_total",
        &["operation"],
        "Those that could not be answered at once: they waited for a source or a disk.",
        |all, out| {
            for it in &all.mount.operations {
                out.add(&[it.operation], it.waited);
            }
        },
    ),
    counter(
        "manifold_kernel_request_errors_total",
        &["operation", "errno"],
        "Those answered with an error; ENOENT says that a name is not there.",
        |all, out| {
            for it in &all.mount.operations {
                for (errno, count) in &it.failed {
                    out.add(&[it.operation, errno], *count);
                }
            }
        },
    ),
    histogram(
        "manifold_kernel_request_duration_seconds",
        &["operation"],
        "How long they took, whatever the answer was.",
        |all, out| {
            for it in &all.mount.operations {
                out.add_took(&[it.operation], &it.took);
            }
        },
    ),
    gauge(
        "manifold_kernel_requests_in_flight",
        &["operation"],
        "Those that are being answered.",
        |all, out| {
            for it in &all.mount.operations {
                out.add(&[it.operation], it.in_flight());
            }
        },
    ),
    counter(
        "manifold_kernel_passthrough_opens_total",
        NONE,
        "Files opened that the kernel reads by itself; those reads are not seen here.",
        |all, out| {
            out.add(NONE, all.mount.left_to_kernel);
        },
    ),
];

pub(super) const READS: &[Metric] = &[
    counter(
        "manifold_reads_total",
        &["answered"],
        "Reads, answered at once or after waiting for a disk or a source.",
        |all, out| {
            out.add(&["at-once"], all.counters.reads_ready);
            out.add(&["after-waiting"], all.counters.reads_waited);
        },
    ),
    counter(
        "manifold_read_bytes_total",
        NONE,
        "Bytes that reads were answered with.",
        |all, out| {
            out.add(NONE, all.counters.bytes_read);
        },
    ),
    gauge(
        "manifold_reads_waiting",
        NONE,
        "Reads that wait for bytes of an object.",
        |all, out| {
            out.add(NONE, all.counters.reads_waiting);
        },
    ),
    counter(
        "manifold_reads_timed_out_total",
        NONE,
        "Reads that ended at their deadline.",
        |all, out| {
            out.add(NONE, all.counters.reads_timed_out);
        },
    ),
    counter(
        "manifold_readahead_bytes_total",
        NONE,
        "Bytes asked for ahead of a reader.",
        |all, out| {
            out.add(NONE, all.counters.bytes_ahead);
        },
    ),
    counter(
        "manifold_fetches_joined_total",
        NONE,
        "Times a reader joined a fetch that was under way already.",
        |all, out| {
            out.add(NONE, all.counters.joined);
        },
    ),
    counter(
        "manifold_fetches_failed_total",
        NONE,
        "Fetches that failed, of readers and ahead of them.",
        |all, out| {
            out.add(NONE, all.counters.requests_failed);
        },
    ),
    gauge(
        "manifold_fetches_in_flight",
        NONE,
        "Fetches under way, from the disk cache and from sources.",
        |all, out| {
            out.add(NONE, all.counters.requests_in_flight);
        },
    ),
    gauge(
        "manifold_fetch_bytes_in_flight",
        NONE,
        "Bytes that they will bring.",
        |all, out| {
            out.add(NONE, all.counters.bytes_in_flight);
        },
    ),
];

pub(super) const CACHE: &[Metric] = &[
    counter(
        "manifold_cache_hits_total",
        &["tier"],
        "Blocks found in memory, on disk, or on disk because they are pinned.",
        |all, out| {
            out.add(&["memory"], all.counters.memory_hits);
            out.add(&["disk"], all.counters.disk_hits);
            out.add(&["pinned"], all.counters.pinned_hits);
        },
    ),
    counter(
        "manifold_cache_misses_total",
        &["tier"],
        "Blocks not found in memory (and looked for on disk next), or not on disk and asked of a source; pinned: also those fetched to be kept.",
        |all, out| {
            out.add(&["memory"], all.counters.memory_misses);
            out.add(&["disk"], all.counters.misses);
            out.add(&["pinned"], all.counters.pinned_misses);
        },
    ),
    gauge(
        "manifold_cache_bytes",
        &["tier"],
        "Bytes of blocks that are kept.",
        |all, out| {
            out.add(&["memory"], all.cache.memory_used);
            out.add(&["disk"], all.cache.disk_used);
            out.add(&["pinned"], all.cache.pinned_used);
        },
    ),
    gauge(
        "manifold_cache_limit_bytes",
        &["tier"],
        "The most that they may be; disk 0: there is no disk cache, pinned 0: what the disk has.",
        |all, out| {
            out.add(&["memory"], all.cache.memory_limit);
            out.add(&["disk"], all.cache.disk_limit);
            out.add(&["pinned"], all.cache.pinned_limit);
        },
    ),
    counter(
        "manifold_cache_evictions_total",
        &["tier"],
        "Blocks put out of memory, files or parts of them put out of the disk cache, to make room.",
        |all, out| {
            out.add(&["memory"], all.counters.memory_blocks_evicted);
            out.add(&["disk"], all.counters.disk_evictions);
        },
    ),
    counter(
        "manifold_cache_disk_evicted_bytes_total",
        NONE,
        "Bytes put out of the disk cache to make room.",
        |all, out| {
            out.add(NONE, all.counters.disk_bytes_evicted);
        },
    ),
    counter(
        "manifold_cache_disk_blocks_written_total",
        NONE,
        "Blocks written to the disk cache.",
        |all, out| {
            out.add(NONE, all.counters.disk_blocks_written);
        },
    ),
    counter(
        "manifold_cache_disk_blocks_skipped_total",
        NONE,
        "Blocks not written to the disk cache, because it was behind, full or out of order.",
        |all, out| {
            out.add(NONE, all.counters.disk_blocks_skipped);
        },
    ),
    counter(
        "manifold_cache_disk_blocks_bad_total",
        NONE,
        "Blocks of the disk cache whose checksum did not match; they were dropped.",
        |all, out| {
            out.add(NONE, all.counters.disk_blocks_bad);
        },
    ),
    counter(
        "manifold_cache_disk_errors_total",
        NONE,
        "Failed operations of the disk cache.",
        |all, out| {
            out.add(NONE, all.counters.disk_errors);
        },
    ),
    gauge(
        "manifold_cache_disk_queue_requests",
        &["purpose"],
        "Fetches that wait for their turn to read the disk cache.",
        |all, out| {
            waiting(NONE, &all.disk_queue, out);
        },
    ),
];

pub(super) const KEPT: &[Metric] = &[
    gauge(
        "manifold_pinned_files",
        &["state"],
        "Pinned files that are whole on this machine, are not yet, or find no room.",
        |all, out| {
            let (total, refused) = (&all.pins.total, all.pins.refused.files);
            out.add(&["whole"], total.files.saturating_sub(total.missing_files));
            out.add(&["missing"], total.missing_files.saturating_sub(refused));
            out.add(&["refused"], refused);
        },
    ),
    gauge(
        "manifold_pinned_bytes",
        &["state"],
        "Bytes of pinned files that are on this machine, or are not.",
        |all, out| {
            let total = &all.pins.total;
            out.add(&["cached"], total.cached_bytes);
            out.add(&["missing"], total.bytes.saturating_sub(total.cached_bytes));
        },
    ),
    gauge(
        "manifold_hashed_files",
        NONE,
        "Files whose content is known, so that copies of them can stand in for them.",
        |all, out| {
            out.add(NONE, all.hashed);
        },
    ),
    counter(
        "manifold_copy_reads_total",
        NONE,
        "Requests answered from another copy than the file that was opened.",
        |all, out| {
            out.add(NONE, all.counters.replica_reads);
        },
    ),
    counter(
        "manifold_copy_switches_total",
        NONE,
        "Requests that failed or were late at one copy, and were answered by another.",
        |all, out| {
            out.add(NONE, all.counters.replica_switches);
        },
    ),
];
