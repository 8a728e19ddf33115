//! An empty gRPC call, on one connection as a client has it to the master.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Channel};

use super::serve::{Helper, announce, runtime, until_alone};
use crate::{
    error::{During as _, Outcome},
    measured::{Latencies, Measured, Meter},
};

#[allow(missing_docs, clippy::all, reason = "generated")]
mod wire {
    tonic::include_proto!("quarry.bench");
}

use wire::{
    Nothing,
    empty_client::EmptyClient,
    empty_server::{Empty, EmptyServer},
};

struct Answers;

#[tonic::async_trait]
impl Empty for Answers {
    async fn call(&self, _: Request<Nothing>) -> Result<Response<Nothing>, Status> {
        Ok(Response::new(Nothing {}))
    }
}

/// Serves.
pub fn serve() -> Outcome {
    runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.during("listening")?;
        announce(listener.local_addr().during("listening")?);
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(EmptyServer::new(Answers))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), until_alone());
        server.await.during("serving")
    })
}

/// Calls for `time`.
pub fn run(concurrency: u32, time: Duration) -> Outcome<Measured> {
    let helper = Arc::new(Helper::start("serve-rpc")?);
    runtime()?.block_on(async {
        let endpoint = Channel::from_shared(format!("http://{}", helper.address)).during("connecting")?;
        let channel = endpoint.tcp_nodelay(true).connect().await.during("connecting")?;
        calls(&channel, concurrency, time / 5).await?;
        let (cpu, meter) = (helper.cpu(), Meter::begin()?);
        let latencies = calls(&channel, concurrency, time).await?;
        meter.end("rpc", concurrency, 0, &latencies, helper.cpu() - cpu)
    })
}

async fn calls(channel: &Channel, concurrency: u32, time: Duration) -> Outcome<Latencies> {
    let until = Instant::now() + time;
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let mut client = EmptyClient::new(channel.clone());
        callers.spawn(async move {
            let mut latencies = Latencies::new()?;
            while Instant::now() < until {
                let began = Instant::now();
                client.call(Nothing {}).await.during("calling")?;
                latencies.add(began.elapsed());
            }
            Ok::<_, crate::error::Failed>(latencies)
        });
    }
    let mut all = Latencies::new()?;
    while let Some(ended) = callers.join_next().await {
        all.merge(&ended.during("calling")??)?;
    }
    Ok(all)
}
