//! `quarry local start` and `start-one`.

use std::{collections::BTreeSet, path::Path, time::Duration};

use nix::sys::signal::Signal;
use quarry_env::{Instant, clock};
use serde_json::json;

use super::{
    cluster::{self, Cluster, Member, Role},
    lock, ports,
    process::{self, LOOK_AGAIN, Running},
    status,
};
use crate::{
    args::{LocalOne, LocalStart},
    context::Context,
    error::{CliError, Outcome},
    local_fs, masters,
    output::Out,
};

/// Chunkservers of a cluster that does not say.
const CHUNKSERVERS_DEFAULT: u16 = 3;
/// Masters of a local cluster at most.
const MASTERS_MAX: u16 = 7;
/// One question whether all are up gets an answer within this, or is asked again.
const ASK: Duration = Duration::from_secs(2);
/// A process that was started in vain gets this long to end by itself.
const GIVE_UP: Duration = Duration::from_secs(3);

/// `local start`.
pub async fn start(context: &Context, args: LocalStart) -> Outcome {
    let masters = context.global.masters_wanted()?;
    for role in [Role::Master, Role::Chunkserver] {
        process::find_program(role)?;
    }
    let dir = cluster::absolute(&args.dir.dir)?;
    local_fs::make_directory(&dir)?;
    let _lock = lock(&dir)?;
    let (cluster, ports) = match Cluster::find(&dir)? {
        Some(cluster) => grown(context, cluster, &args, masters).await?,
        None => created(context, &dir, &args, masters.unwrap_or(1)).await?,
    };
    for below in ["logs", "run"] {
        local_fs::make_directory(&dir.join(below))?;
    }
    cluster.save()?;
    drop(ports);
    let mut started = make_masters(context, &cluster, args.wait).await?;
    let members: Vec<&Member> = cluster.members.iter().collect();
    started.extend(bring_up(context, &cluster, &members, args.wait).await?);
    report(context, &cluster, &started).await
}

/// Makes the data directories of masters that have none. The first makes the cluster; it has to run for the others.
async fn make_masters<'a>(
    context: &Context,
    cluster: &'a Cluster,
    limit: Duration,
) -> Outcome<Vec<(&'a Member, Running)>> {
    let (mut started, mut founder) = (Vec::new(), None);
    for master in cluster.of_role(Role::Master) {
        let founder = *founder.get_or_insert(master);
        match (is_new(cluster, master)?, founder.name == master.name) {
            (false, _) => {}
            (true, true) => process::init_master(&context.world, cluster, master).await?,
            (true, false) => {
                started.extend(bring_up(context, cluster, &[founder], limit).await?);
                process::join_master(&context.world, cluster, master).await?;
            }
        }
    }
    Ok(started)
}

/// Takes masters that run and are not in the group into it.
async fn let_in(context: &Context, cluster: &Cluster) -> Outcome {
    let client = context.client_of(cluster.master_addresses(), context.global.timeout).await?;
    let known = client.masters().await?.masters;
    let votes = |address: &String| known.iter().any(|m| m.address == *address && m.role != masters::LEARNER);
    let strangers: Vec<String> = cluster.master_addresses().into_iter().filter(|address| !votes(address)).collect();
    if !strangers.is_empty() {
        masters::add(context, &client, &strangers, false).await?;
    }
    client.close().await?;
    Ok(())
}

/// `local start-one`.
pub async fn start_one(context: &Context, args: LocalOne) -> Outcome {
    let cluster = Cluster::open(&args.dir.dir)?;
    let member = cluster.member(&args.name)?;
    let _lock = lock(&cluster.dir)?;
    let started = bring_up(context, &cluster, &[member], args.wait).await?;
    if started.is_empty() {
        context.notes.note(format!("{} runs already", member.name));
    }
    Ok(())
}

/// An existing cluster, with the chunkservers that it shall have more of.
async fn grown(
    context: &Context,
    mut cluster: Cluster,
    args: &LocalStart,
    masters: Option<u16>,
) -> Outcome<(Cluster, Option<ports::Ports>)> {
    let refuse = |what: String| Err(CliError::usage(format!("the cluster in {} {what}", cluster.dir.display())));
    let there = cluster.of_role(Role::Master).count();
    if masters.is_some_and(|masters| usize::from(masters) != there) {
        return refuse(format!("was made with --masters {there}; leave --masters out"));
    }
    let there = cluster.of_role(Role::Chunkserver).count();
    let wanted = args.chunkservers.map_or(there, usize::from);
    if wanted < there {
        return refuse(format!("has {there} chunkservers; leave --chunkservers out, or name at least as many"));
    }
    if args.racks.is_some_and(|racks| racks != cluster.racks) {
        return refuse(format!("has {} racks; leave --racks out", cluster.racks));
    }
    if let (Some(base), Some(master)) = (args.base_port, cluster.of_role(Role::Master).next())
        && master.port != base
    {
        return refuse(format!("has its first master at port {}; leave --base-port out", master.port));
    }
    if wanted == there {
        return Ok((cluster, None));
    }
    let taken: BTreeSet<u16> = cluster.members.iter().map(|member| member.port).collect();
    let ports = ports::pick_more(&context.world, wanted - there, &taken).await?;
    ports.numbers.iter().for_each(|port| cluster.add_chunkserver(*port));
    Ok((cluster, Some(ports)))
}

/// A new cluster in a directory that has nothing else in it.
async fn created(
    context: &Context,
    dir: &Path,
    args: &LocalStart,
    masters: u16,
) -> Outcome<(Cluster, Option<ports::Ports>)> {
    if masters > MASTERS_MAX {
        return Err(CliError::usage(format!("--masters {masters} is more than {MASTERS_MAX}; 1, 3 or 5 are of use")));
    }
    let foreign = local_fs::entries(dir)?.into_iter().find(|(name, _)| name != "lock" && name != "lost+found");
    if let Some((name, _)) = foreign {
        return Err(CliError::new(
            quarry_types::ErrorCode::NotEmpty,
            format!(
                "{} has {name:?} in it and is no local cluster; give a --dir that is empty or does not exist",
                dir.display()
            ),
        ));
    }
    let chunkservers = args.chunkservers.unwrap_or(CHUNKSERVERS_DEFAULT);
    let count = masters.saturating_add(chunkservers);
    let ports = ports::pick(&context.world, args.base_port, count).await?;
    let (of_masters, others) = ports.numbers.split_at(usize::from(masters).min(ports.numbers.len()));
    let mut cluster = Cluster::new(dir.to_path_buf(), args.racks.unwrap_or(1), of_masters);
    others.iter().for_each(|port| cluster.add_chunkserver(*port));
    Ok((cluster, Some(ports)))
}

fn is_new(cluster: &Cluster, master: &Member) -> Outcome<bool> {
    let data = cluster.data_dir(master);
    Ok(local_fs::look(&data)?.is_none() || local_fs::entries(&data)?.is_empty())
}

/// Starts those of `members` that do not run, and waits until they are up. What was started in vain is stopped.
async fn bring_up<'a>(
    context: &Context,
    cluster: &'a Cluster,
    members: &[&'a Member],
    limit: Duration,
) -> Outcome<Vec<(&'a Member, Running)>> {
    let deadline = context.world.clock.now().plus(limit);
    let mut started = Vec::new();
    let done = spawn_and_wait(context, cluster, members, deadline, &mut started).await;
    if let Err(error) = done {
        give_up(context, cluster, &started).await;
        return Err(error);
    }
    Ok(started)
}

async fn spawn_and_wait<'a>(
    context: &Context,
    cluster: &'a Cluster,
    members: &[&'a Member],
    deadline: Instant,
    started: &mut Vec<(&'a Member, Running)>,
) -> Outcome {
    for member in members {
        if Running::find(cluster, member)?.is_some() {
            continue;
        }
        started.push((member, process::spawn(cluster, member)?));
        if member.role == Role::Master {
            // A chunkserver that finds no master waits longer and longer between its tries.
            wait_for_port(context, cluster, started, member, deadline).await?;
        }
    }
    for member in members {
        wait_for_port(context, cluster, started, member, deadline).await?;
    }
    if cluster.of_role(Role::Master).all(|master| members.iter().any(|member| member.name == master.name)) {
        let_in(context, cluster).await?;
    }
    wait_alive(context, cluster, members, started, deadline).await
}

/// Waits until something listens at the member's address.
async fn wait_for_port(
    context: &Context,
    cluster: &Cluster,
    started: &[(&Member, Running)],
    member: &Member,
    deadline: Instant,
) -> Outcome {
    let world = &context.world;
    loop {
        let address = member.address();
        let connect = world.net.connect(&address);
        if matches!(clock::timeout(&*world.clock, ASK, connect).await, Ok(Ok(_))) {
            return Ok(());
        }
        check_ended(cluster, started)?;
        if world.clock.now() >= deadline {
            return Err(too_late(cluster, member, "does not listen"));
        }
        world.clock.sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the master leads and every one of `members` is registered with it and beats. Chunkservers alone cannot be asked
/// about: with the master down, listening must do.
async fn wait_alive(
    context: &Context,
    cluster: &Cluster,
    members: &[&Member],
    started: &[(&Member, Running)],
    deadline: Instant,
) -> Outcome {
    let world = &context.world;
    let mut master_runs = false;
    for master in cluster.of_role(Role::Master) {
        master_runs |= Running::find(cluster, master)?.is_some();
    }
    if !master_runs {
        context.notes.warning("no master runs, so whether the process takes part is not known");
        return Ok(());
    }
    loop {
        let absent = match ask(context, cluster).await {
            Ok(status) => members.iter().find(|member| !status::is_up(&status, member)).copied(),
            Err(_) => members.first().copied(),
        };
        let Some(absent) = absent else { return Ok(()) };
        check_ended(cluster, started)?;
        if world.clock.now() >= deadline {
            return Err(too_late(cluster, absent, "does not take part"));
        }
        world.clock.sleep(LOOK_AGAIN).await;
    }
}

async fn ask(context: &Context, cluster: &Cluster) -> Outcome<quarry_proto::v1::StatusReply> {
    let answer = async {
        let client = context.client_of(cluster.master_addresses(), ASK).await?;
        Ok(client.status().await?)
    };
    match clock::timeout(&*context.world.clock, ASK, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(CliError::new(quarry_types::ErrorCode::DeadlineExceeded, late.to_string())),
    }
}

fn check_ended(cluster: &Cluster, started: &[(&Member, Running)]) -> Outcome {
    for (member, running) in started {
        if !running.still_runs()? {
            return Err(with_log(cluster, member, format!("{} ended right after its start", member.name)));
        }
    }
    Ok(())
}

fn too_late(cluster: &Cluster, member: &Member, what: &str) -> CliError {
    with_log(cluster, member, format!("{} at {} {what} yet, and --wait is over", member.name, member.address()))
}

fn with_log(cluster: &Cluster, member: &Member, what: String) -> CliError {
    CliError::local(what).hint(format!(
        "its log {} ends: {}",
        cluster.log(member).display(),
        process::last_lines(cluster, member)
    ))
}

/// Stops what was started in vain. The error that led here is the one to be told.
async fn give_up(context: &Context, cluster: &Cluster, started: &[(&Member, Running)]) {
    for (_, running) in started {
        let _told_already = running.signal(Signal::SIGTERM);
    }
    for (member, running) in started {
        if !matches!(running.wait_end(&context.world, GIVE_UP).await, Ok(true)) {
            let _told_already = running.signal(Signal::SIGKILL);
        }
        let _told_already = local_fs::remove(&cluster.pid_file(member));
    }
}

async fn report(context: &Context, cluster: &Cluster, started: &[(&Member, Running)]) -> Outcome {
    let mut out = Out::new();
    if context.global.json {
        let mut value = status::json_of(cluster)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("started".into(), started.iter().map(|(member, _)| json!(member.name)).collect());
        }
        out.json(&value).await?;
        return out.flush().await;
    }
    for (member, running) in started {
        let rack = member.rack.as_ref().map(|rack| format!(", {rack}")).unwrap_or_default();
        out.line(format!("started {} at {} (pid {}{rack})", member.name, member.address(), running.pid)).await?;
    }
    if started.is_empty() {
        out.line("everything runs already").await?;
    }
    out.line(format!("all are up; data and logs are in {}", cluster.dir.display())).await?;
    out.line(format!("use it with: quarry --masters {0} …  or: export QUARRY_MASTERS={0}", cluster.masters())).await?;
    out.flush().await
}
