use quarry_types::ErrorCode;

use crate::{
    command::{LogMark, MarkLogs},
    keys,
    limits::MASTERS_MAX,
    reply::Reply,
    rows::LogMarks,
    state::{Fault, Write, find, refuse},
    tables::Table,
};

/// Remembers how far each master has acknowledged the log. A mark never goes back, since what it speaks of was committed, and
/// stays when its master leaves the group: no other may come under that number (S11). Past the limit the lowest numbers of
/// those that left go first.
pub(crate) fn mark(write: &mut Write<'_, '_>, command: &MarkLogs) -> Result<Reply, Fault> {
    if command.logs.len() > MASTERS_MAX {
        return refuse(ErrorCode::InvalidArgument, format!("logs of more than {MASTERS_MAX} masters"));
    }
    let before: Option<LogMarks> = find(write.tables(), Table::Meta, keys::LOG_MARKS)?;
    let before = before.map(|marks| marks.logs).unwrap_or_default();
    let known = |log: &LogMark| before.iter().find(|mark| mark.node == log.node).map_or(0, |mark| mark.index);
    let mut logs: Vec<LogMark> =
        command.logs.iter().map(|log| LogMark { node: log.node, index: log.index.max(known(log)) }).collect();
    let gone = before.iter().filter(|mark| logs.iter().all(|log| log.node != mark.node)).cloned();
    let mut gone: Vec<LogMark> = gone.collect();
    gone.sort_by_key(|mark| std::cmp::Reverse(mark.node));
    gone.truncate(MASTERS_MAX - logs.len());
    logs.append(&mut gone);
    logs.sort_by_key(|log| log.node);
    write.put(Table::Meta, keys::LOG_MARKS.to_vec(), &LogMarks { logs });
    Ok(Reply::DONE)
}
