//! Members hash what they hold right after the same entry, whatever is applied in the same go.

use futures::future::join_all;
use quarry_master_core::{
    agreement::{Digest, Hashing},
    command::CompareStates,
    tables::{ReadTables as _, Table},
};

use super::{
    three::{three, until},
    *,
};

async fn compare(group: &Group) -> u64 {
    let command = Command { wall_ms: 1, kind: Kind::CompareStates(CompareStates {}) };
    match group.propose(command).await.unwrap().unwrap() {
        Reply::Comparison(at) => at.index,
        other => panic!("{other:?}"),
    }
}

/// What a member holds now, hashed here.
async fn held(group: &Group) -> Digest {
    let view = group.view();
    let hash = move || {
        let mut hashing = Hashing::default();
        for table in Table::ALL {
            for (key, value) in view.scan(*table, b"", None, usize::MAX).unwrap() {
                hashing.row(*table, &key, &value);
            }
        }
        hashing.finish()
    };
    group.blocking(hash).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_hash_the_state_right_after_the_same_entry() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let group = &members[0].group;
    for round in 0..5 {
        // More than one page of rows, and commands before and behind the comparison in the same batches.
        let before = join_all((0..150).map(|n| session(group, round * 1000 + n)));
        let behind = join_all((150..300).map(|n| session(group, round * 1000 + n)));
        let (_, index, _) = tokio::join!(before, compare(group), behind);
        let digests = || members.iter().map(|member| member.group.digest(index)).collect::<Vec<_>>();
        until("all have hashed", async || digests().iter().all(|known| matches!(known, Known::Digest(_)))).await;
        let digests = digests();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
        let asked = group.ask_digest(&members[2].node, index).await.unwrap();
        assert_eq!(asked, digests[0], "over the wire as well");
        assert_eq!(group.digest(index + 1), Known::Nothing);
    }
    let index = compare(group).await;
    until("it has hashed", async || matches!(group.digest(index), Known::Digest(_))).await;
    assert_eq!(group.digest(index), Known::Digest(held(group).await), "every row of every table");
    for member in members {
        member.stop().await;
    }
}
