//! An empty round trip on a data connection: Quarry's frames and sockets, and nobody who does anything.

use std::{sync::Arc, time::Instant};

use quarry_client::frames::{FrameReader, FrameWriter};
use quarry_env::{World, kv::NoKv, net::BoxStream};
use quarry_proto::v1;

use super::serve::{Helper, announce, runtime, until_alone};
use crate::{
    error::{During as _, Failed, Outcome},
    measured::{Latencies, Measured, Meter},
};

/// Round trips before it counts.
const WARM: u64 = 100;

fn world() -> World {
    World::real(Arc::new(NoKv))
}

/// Answers frames.
pub fn serve() -> Outcome {
    runtime()?.block_on(async {
        let listener = world().net.bind("127.0.0.1:0").await.during("listening")?;
        announce(listener.local_addr().during("listening")?);
        let serving = async {
            loop {
                let stream = listener.accept().await.during("listening")?;
                tokio::spawn(answer(stream));
            }
        };
        tokio::select! {
            ended = serving => ended,
            () = until_alone() => Ok(()),
        }
    })
}

async fn answer(stream: BoxStream) -> Outcome {
    let (from, to) = tokio::io::split(stream);
    let (mut from, mut to) = (FrameReader::new(from, "caller"), FrameWriter::new(to, "caller"));
    while from.next().await.during("reading a frame")?.is_some() {
        to.send(v1::ProbeReply {}).await.during("answering")?;
    }
    Ok(())
}

/// Asks `operations` times.
pub fn run(operations: u64) -> Outcome<Measured> {
    let helper = Helper::start("serve-echo")?;
    runtime()?.block_on(async {
        let stream = world().net.connect(&helper.address).await.during("connecting")?;
        let (from, to) = tokio::io::split(stream);
        let (mut from, mut to) = (FrameReader::new(from, "echo"), FrameWriter::new(to, "echo"));
        let mut latencies = Latencies::new()?;
        let (mut cpu, mut meter) = (helper.cpu(), Meter::begin()?);
        for number in 0..operations + WARM {
            if number == WARM {
                (latencies, cpu, meter) = (Latencies::new()?, helper.cpu(), Meter::begin()?);
            }
            let began = Instant::now();
            to.send(v1::Probe {}).await.during("asking")?;
            if from.next().await.during("waiting for an answer")?.is_none() {
                return Err(Failed::new("waiting for an answer", "the connection ended"));
            }
            latencies.add(began.elapsed());
        }
        meter.end("echo", 1, 0, &latencies, helper.cpu() - cpu)
    })
}
