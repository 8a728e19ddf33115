use std::collections::BTreeMap;

use proptest::prelude::*;
use quarry_master_core::tables::{MemTables, Overlay, ReadTables as _, Table};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Begin,
    Rollback,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..20, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        3 => (0u8..20).prop_map(Step::Delete),
        1 => Just(Step::Begin),
        1 => Just(Step::Rollback),
        1 => Just(Step::Release),
    ]
}

proptest! {
    #[test]
    fn an_overlay_reads_like_the_tables_it_will_make(
        base in proptest::collection::btree_map(0u8..20, any::<u8>(), 0..15),
        steps in proptest::collection::vec(step(), 0..60),
        (from, to, limit) in (0u8..20, proptest::option::of(0u8..22), 0usize..8),
    ) {
        let mut tables = MemTables::default();
        tables.write(base.iter().map(|(k, v)| (Table::Row, vec![*k], Some(vec![*v]))).collect());
        let mut model: BTreeMap<u8, u8> = base;
        let mut overlay = Overlay::new(&tables);
        let mut open = Vec::new();
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    overlay.put(Table::Row, vec![k], vec![v]);
                    model.insert(k, v);
                }
                Step::Delete(k) => {
                    overlay.delete(Table::Row, vec![k]);
                    model.remove(&k);
                }
                Step::Begin => open.push((overlay.savepoint(), model.clone())),
                Step::Rollback => {
                    if let Some((savepoint, before)) = open.pop() {
                        overlay.rollback(savepoint);
                        model = before;
                    }
                }
                Step::Release => {
                    if let Some((savepoint, _)) = open.pop() {
                        overlay.release(savepoint);
                    }
                }
            }
        }
        for k in 0..20 {
            prop_assert_eq!(overlay.get(Table::Row, &[k]).unwrap(), model.get(&k).map(|v| vec![*v]));
        }
        let to_key = to.map(|t| vec![t]);
        let found = overlay.scan(Table::Row, &[from], to_key.as_deref(), limit).unwrap();
        let wanted: Vec<_> = model.iter().filter(|(k, _)| **k >= from && to.is_none_or(|t| **k < t))
            .take(limit).map(|(k, v)| (vec![*k], vec![*v])).collect();
        prop_assert_eq!(found, wanted);
        let changes = overlay.into_changes();
        tables.write(changes);
        let after: BTreeMap<u8, u8> = tables.rows(Table::Row).map(|(k, v)| (k[0], v[0])).collect();
        prop_assert_eq!(after, model);
    }
}
