//! Who speaks to whom between masters, and the proof of it.

use quarry_env::World;
use quarry_proto::{
    WireError,
    signed::{self, BetweenMasters},
    v1,
};
use quarry_types::{ClusterId, ClusterKey, ErrorCode};

/// What a member of a group proves to others, and asks of them.
#[derive(Clone, Debug)]
pub struct Belonging {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its key.
    pub key: ClusterKey,
}

/// One member, as it speaks to another.
#[derive(Clone)]
pub(super) struct Parties {
    belonging: Belonging,
    me: u64,
}

impl Parties {
    pub fn new(belonging: Belonging, me: u64) -> Self {
        Parties { belonging, me }
    }

    /// What a request to `to` begins with.
    pub fn request(&self, world: &World, to: u64) -> v1::RaftParties {
        let cluster = self.belonging.cluster.to_bytes().into();
        v1::RaftParties { cluster, from: self.me, to, nonce: world.random.next_u64() }
    }

    /// What the answer to a request begins with.
    pub fn answer(&self, to: &v1::RaftParties) -> v1::RaftParties {
        v1::RaftParties { cluster: to.cluster.clone(), from: self.me, to: to.from, nonce: to.nonce }
    }

    pub fn sign<M: BetweenMasters>(&self, message: &M) -> v1::Signed {
        signed::sign(&self.belonging.key, message)
    }

    /// Verifies and decodes a request to this member.
    pub fn open<M: BetweenMasters>(&self, signed: &v1::Signed) -> Result<(M, v1::RaftParties), WireError> {
        let (message, parties) = self.open_to_anyone::<M>(signed)?;
        if parties.to != self.me || parties.from == self.me {
            let (from, to) = (parties.from, parties.to);
            return Err(refused(format!("this is master m{}, and the message is from m{from} to m{to}", self.me)));
        }
        Ok((message, parties))
    }

    /// The same for a request that names no receiver.
    pub fn open_to_anyone<M: BetweenMasters>(&self, signed: &v1::Signed) -> Result<(M, v1::RaftParties), WireError> {
        let message: M = signed::open(&self.belonging.key, signed)?;
        let parties = message.parties().cloned().unwrap_or_default();
        if parties.cluster != self.belonging.cluster.to_bytes().as_slice() {
            return Err(refused("this master belongs to another cluster".into()));
        }
        Ok((message, parties))
    }

    /// Verifies and decodes the answer to the request that began with `asked`.
    pub fn open_answer<M: BetweenMasters>(&self, signed: &v1::Signed, asked: &v1::RaftParties) -> Result<M, WireError> {
        let (message, parties) = self.open::<M>(signed)?;
        if (parties.from, parties.nonce) != (asked.to, asked.nonce) {
            return Err(refused("an answer to another question".into()));
        }
        Ok(message)
    }

    /// The same for a request that named no receiver: also who answered, which may be this member itself.
    pub fn open_anyones_answer<M: BetweenMasters>(
        &self,
        signed: &v1::Signed,
        asked: &v1::RaftParties,
    ) -> Result<(M, u64), WireError> {
        let (message, parties) = self.open_to_anyone::<M>(signed)?;
        if (parties.to, parties.nonce) != (self.me, asked.nonce) {
            return Err(refused("an answer to another question".into()));
        }
        Ok((message, parties.from))
    }

    /// This member.
    pub fn me(&self) -> u64 {
        self.me
    }

    /// The cluster and its key.
    pub fn belonging(&self) -> &Belonging {
        &self.belonging
    }
}

pub(super) fn refused(why: String) -> WireError {
    WireError::new(ErrorCode::Unauthorized, format!("a message between masters was refused: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parties(me: u64, cluster: u128) -> Parties {
        let (cluster, key) = (ClusterId::from_random(cluster), ClusterKey::new([3; 32]));
        Parties::new(Belonging { cluster, key }, me)
    }

    #[test]
    fn s11_a_message_that_went_astray_is_refused() {
        let world = World::real(std::sync::Arc::new(quarry_env::kv::NoKv));
        let (one, two) = (parties(1, 7), parties(2, 7));
        let asked = one.request(&world, 2);
        let request = v1::VoteRequest { parties: Some(asked.clone()), ..Default::default() };
        let signed = one.sign(&request);
        let (opened, from) = two.open::<v1::VoteRequest>(&signed).unwrap();
        assert_eq!(opened, request);
        for (other, what) in
            [(parties(3, 7), "another member"), (parties(2, 8), "another cluster"), (one.clone(), "me")]
        {
            assert_eq!(other.open::<v1::VoteRequest>(&signed).unwrap_err().code, ErrorCode::Unauthorized, "{what}");
        }
        assert!(two.open::<v1::AppendRequest>(&signed).is_err(), "a message of another kind");
        let answer = v1::VoteReply { parties: Some(two.answer(&from)), granted: true, ..Default::default() };
        let signed = two.sign(&answer);
        assert_eq!(one.open_answer::<v1::VoteReply>(&signed, &asked).unwrap(), answer);
        let later = one.request(&world, 2);
        let replayed = one.open_answer::<v1::VoteReply>(&signed, &later);
        assert_eq!(replayed.unwrap_err().code, ErrorCode::Unauthorized, "an old answer is none to a new question");
    }
}
