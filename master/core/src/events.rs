//! What changed of late, for those who watch: apply writes it beside the change, in the same batch, so that every master has
//! the same events, and a backup and a snapshot have them too.
//!
//! An event costs a row, and a command that makes some one small row more, whatever their number. The table is bounded:
//! every [`EVENTS_UNCHECKED`] events the oldest go that are too many.

use crate::{
    keys,
    limits::{EVENTS_BYTES_MAX, EVENTS_UNCHECKED},
    rows::{Event, Events, Record as _},
    settings::WATCH_EVENTS,
    state::{Write, bad_key, find},
    tables::{Table, TableError},
};

/// Removed for each event that was written since the last look, at most: so that a bound that was lowered is reached, in
/// bounded steps.
const SWEPT_PER_EVENT: u64 = 4;

impl Write<'_, '_> {
    /// Which events are kept, or `None` before they begin.
    pub(crate) fn events(&self) -> Result<Option<Events>, TableError> {
        find(self.tables(), Table::Meta, keys::EVENTS)
    }

    /// Lets events begin with this command.
    pub(crate) fn begin_events(&mut self) {
        self.put(Table::Meta, keys::EVENTS.to_vec(), &Events::beginning(self.index));
    }

    /// Writes the events that the command made, at its end.
    pub(crate) fn write_events(&mut self) -> Result<(), TableError> {
        let changes = self.take_changes();
        if changes.is_empty() {
            return Ok(());
        }
        let Some(mut events) = self.events()? else { return Ok(()) };
        for (position, change) in (1..).zip(changes) {
            let (key, wall_ms) = (keys::event(self.index, position), self.wall_ms);
            let value = Event { wall_ms, change }.encode();
            events.count += 1;
            events.bytes = events.bytes.saturating_add(row_bytes(&key, &value));
            events.unchecked += 1;
            (events.last_index, events.last_position) = (self.index, position);
            self.put_bytes(Table::Event, key, value);
        }
        if events.unchecked >= EVENTS_UNCHECKED {
            self.sweep(&mut events)?;
            events.unchecked = 0;
        }
        self.put(Table::Meta, keys::EVENTS.to_vec(), &events);
        Ok(())
    }

    /// Removes the oldest events, as many as are too many and at most so many that a command stays short.
    fn sweep(&mut self, events: &mut Events) -> Result<(), TableError> {
        let most = self.settings()?.get(&WATCH_EVENTS);
        let too_many = |events: &Events| events.count > most || events.bytes > EVENTS_BYTES_MAX;
        if !too_many(events) {
            return Ok(());
        }
        let limit = usize::try_from(events.unchecked.saturating_mul(SWEPT_PER_EVENT)).unwrap_or(usize::MAX);
        // From behind the last one that was removed: a scan from the table's beginning would wade through what is gone.
        let from = keys::behind(&keys::event(events.swept_index, events.swept_position));
        for (key, value) in self.tables().scan(Table::Event, &from, None, limit)? {
            if !too_many(events) {
                break;
            }
            let (index, position) = keys::read_two(&key).ok_or_else(|| bad_key(Table::Event, &key))?;
            (events.swept_index, events.swept_position) = (index, position);
            events.count = events.count.saturating_sub(1);
            events.bytes = events.bytes.saturating_sub(row_bytes(&key, &value));
            self.delete(Table::Event, key);
        }
        Ok(())
    }
}

fn row_bytes(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}
