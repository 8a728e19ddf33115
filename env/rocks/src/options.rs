//! How a store is tuned, and which damage it accepts after a crash.

use quarry_env::{KvOptions, Recovery};
use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

/// Compactions and flushes at a time. Metadata is small; the cores belong to bulk bytes.
const BACKGROUND_JOBS: i32 = 2;
/// Tables held open. With 64 MiB tables this covers a store of 16 GiB without reopening.
const OPEN_FILES_MAX: i32 = 256;
/// RocksDB's own log file ("LOG"), which rotates at this size.
const INFO_LOG_BYTES: usize = 1 << 20;
/// Rotated info logs kept.
const INFO_LOGS: usize = 2;
/// The write-ahead log may hold this many write buffers' worth before the oldest memory table is flushed to free it.
const WAL_BUFFERS: u64 = 4;
/// The manifest is rewritten past this size.
const MANIFEST_BYTES: usize = 4 << 20;
/// Data blocks: small enough that a point read of metadata is cheap, large enough to compress.
const BLOCK_BYTES: usize = 8 << 10;
/// Values shorter than this stay with their keys: the pointer to one takes some 20 bytes, and a look at it a read.
const BLOB_MIN_BYTES: u64 = 64;

/// The options of the whole store and of each of its column families.
pub(crate) fn options(tune: KvOptions) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    recovery(&mut options, tune.recovery);
    memory(&mut options, tune);

    options.set_disable_auto_compactions(!tune.upkeep);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    // Spreads writeback, so that one fsync does not wait for a whole table's worth of pages.
    options.set_bytes_per_sync(1 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

/// The options of a column family whose values are kept apart, in blob files: compactions copy only their keys, and a damaged
/// value is in the way of nobody who does not read it.
pub(crate) fn apart(mut options: Options) -> Options {
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_MIN_BYTES);
    options.set_blob_compression_type(DBCompressionType::None);
    // A compaction that moved values would fail at a damaged one, and the store with it. A file goes when nothing in it is named any
    // more: whoever keeps values writes them anew from time to time.
    options.set_enable_blob_gc(false);
    options
}

/// Which damage in the write-ahead log is accepted.
///
/// RocksDB knows four modes. `AbsoluteConsistency` refuses any unfinished record: then a plain `kill -9` in the middle of
/// a write, which leaves half a record that nobody was told is durable, would make the store refuse to open.
/// `PointInTime`, the default, stops at the first bad record and throws away everything behind it without a word: a
/// flipped bit in the middle of the log would silently undo synced, acknowledged batches. `SkipAnyCorruptedRecord` is
/// worse still.
///
/// [`Recovery::Synced`] is therefore `TolerateCorruptedTailRecords`: an *unfinished* record at the end of a log is a tail,
/// a record whose checksum fails is not, and refuses. (After a power loss the last, never synced record can have its
/// pages written out of order and fail its checksum too. That refuses as well: it cannot be told from damage to a synced
/// one, and an operator's look is cheaper than a lost acknowledgement.) The mode tolerates an unfinished end of *each*
/// log file, so the manifest also tracks synced logs and their sizes: a missing or shortened older log refuses.
///
/// [`Recovery::Prefix`] is `PointInTime`: what is lost is repeated from the Raft log, which is the durable one, and
/// writeback of a long unsynced tail in any order must not keep a master from starting.
fn recovery(options: &mut Options, recovery: Recovery) {
    match recovery {
        Recovery::Synced => {
            options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
            options.set_track_and_verify_wals_in_manifest(true);
        }
        Recovery::Prefix => options.set_wal_recovery_mode(DBRecoveryMode::PointInTime),
    }
    // Recycled log files carry old records beyond their end, which hides where a torn tail is.
    options.set_recycle_log_file_num(0);
    options.set_paranoid_checks(true);
}

/// Bounds what the store keeps in memory: one cache for blocks, indexes and filters, one budget for memory tables.
fn memory(options: &mut Options, tune: KvOptions) {
    let cache = Cache::new_lru_cache(tune.cache_bytes);
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&cache);
    tables.set_block_size(BLOCK_BYTES);
    tables.set_bloom_filter(10.0, false);
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In pieces: the filter of a whole table is larger than a shard of the cache, which then drops it after each look, and every
    // read of a key reads it again.
    tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    tables.set_partition_filters(true);
    tables.set_metadata_block_size(BLOCK_BYTES);
    tables.set_pin_top_level_index_and_filter(true);
    tables.set_format_version(5);
    options.set_block_based_table_factory(&tables);

    // The budget is for all column families together; one alone may use all of it.
    options.set_write_buffer_size(tune.write_buffer_bytes);
    options.set_db_write_buffer_size(tune.write_buffer_bytes);
    options.set_max_write_buffer_number(2);
    let buffer = u64::try_from(tune.write_buffer_bytes).unwrap_or(u64::MAX);
    options.set_max_total_wal_size(buffer.saturating_mul(WAL_BUFFERS));
}
