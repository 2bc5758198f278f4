//! One run from beginning to end.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::Outcome;
use crate::check::{Excuses, compare, entries, outbox, rows};
use crate::crew::{Crew, Layout};
use crate::dice::Dice;
use crate::faults::{Played, Stage};
use crate::job::{Job, Singles, StoreAt, cluster, redis};
use crate::open::{open, patiently};
use crate::options::{Delivery, End, Options, StoreKind};
use crate::repair::Keeper;
use crate::script::{CONSUMERS, Lane, RELAYS, script};
use crate::serve::Remote;
use crate::transport::Side;
use crate::verdict::Verdict;
use crate::view::{Direct, Seen, View};
use crate::watch::Watch;
use crate::world::World;

/// Threads that read while others write.
const READERS: u64 = 2;

const MINUTE: Duration = Duration::from_mins(1);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Says what is to be, and starts the servers.
pub(crate) fn prepare(options: &Options) -> Outcome<World> {
    println!("torture {options}");
    if is_told_before(options) && !options.faults.is_empty() {
        println!("the script:");
        print_script(options);
    }
    listen()?;
    World::start(options)
}

/// Prints the script of a run, the first minute at most.
pub(crate) fn print_script(options: &Options) {
    let time = if let End::After(time) = options.end { time.min(MINUTE) } else { MINUTE };
    let mut events: Vec<_> =
        Lane::ALL.into_iter().flat_map(|lane| script(options, lane).take_while(|event| event.at < time)).collect();
    events.sort_by_key(|event| event.at);
    for event in events {
        println!("{event}");
    }
}

/// Whether the script is told at the beginning; otherwise each fault is told as it begins.
fn is_told_before(options: &Options) -> bool {
    matches!(options.end, End::After(time) if time <= MINUTE)
}

/// Whether somebody wants to stop.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Runs it, prints what it found, and returns whether that was nothing.
pub(crate) fn run(options: &Options, world: &World) -> Outcome<bool> {
    let view: Arc<dyn View> = patiently(|| view(world))?;
    let (jobs, layout) = jobs(world, options);
    let crew = Crew::start(jobs, Arc::clone(&INTERRUPTED))?;
    let watch = Arc::new(Watch::default());
    let readers = readers(options, &watch, &view)?;
    let played = Played::default();
    play(options, world, &crew, layout, &watch, &played)?;
    if is_interrupted() {
        return Err("interrupted; everything that was started is stopped".into());
    }
    let played = played.into_inner();
    let kinds: Vec<String> = played.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("faults: {}", kinds.join(", "));
    println!("no more faults; waiting until everything that was written is in the store");
    let mut trouble = Vec::new();
    if let Err(error) = quiet(&crew, layout) {
        trouble.push(format!("not everything could be flushed: {error}"));
    }
    if let Some(broker) = &world.broker {
        match broker.left() {
            Ok(None) => {}
            Ok(Some(left)) => trouble.push(format!("the broker still holds {left}")),
            Err(error) => trouble.push(format!("the broker could not be asked what it holds: {error}")),
        }
    }
    watch.stop();
    for reader in readers {
        reader.join().map_err(|_| "a reader panicked")?;
    }
    let progress = crew.progress()?;
    let (excuses, reads) = (crew.excuses(), watch.reads());
    let (killed, dirty) = (excuses.killed.len(), excuses.dirty.len());
    println!(
        "quiet: {} conflicts, {} retries, {reads} reads; {killed} processes were killed, {dirty} said that a table is dirty",
        progress.conflicts, progress.retries
    );
    if world.broker.is_some() {
        println!("consumers received {} messages, {} of them again", progress.received, progress.redelivered);
    }
    let mut verdict = watch.verdict();
    verdict.add(&settle(options, world, &crew, layout, &*view, &mut trouble)?);
    trouble.extend(crew.complaints());
    trouble.dedup();
    for trouble in trouble.iter().take(20) {
        println!("failed: {trouble}");
    }
    println!("writes={} faults={} {verdict}", progress.writes, played.values().sum::<usize>());
    Ok(verdict.is_clean() && trouble.is_empty())
}

/// Lets everybody come to rest, and says every so often how much is left.
fn quiet(crew: &Crew, layout: Layout) -> Outcome {
    thread::scope(|scope| {
        let resting = scope.spawn(|| crew.quiet(layout));
        let begin = Instant::now();
        let mut told = begin;
        while !resting.is_finished() {
            if told.elapsed() >= Duration::from_secs(2) {
                println!("{:6.1} s: backlog={}", begin.elapsed().as_secs_f64(), crew.told().backlog);
                told = Instant::now();
            }
            thread::sleep(Duration::from_millis(20));
        }
        resting.join().map_err(|_| "the thread that waits for quiet panicked")?
    })
}

/// Checks, mends what kills took with them, and checks again.
fn settle(
    options: &Options,
    world: &World,
    crew: &Crew,
    layout: Layout,
    view: &dyn View,
    trouble: &mut Vec<String>,
) -> Outcome<Verdict> {
    let excuses = crew.excuses();
    let (allowed, cure) = match options.delivery {
        Delivery::Memory => (excuses, "repair"),
        // Who is killed takes nothing along; but a store may still forget.
        _ => (Excuses { forgot: excuses.forgot, ..Excuses::default() }, "replay"),
    };
    if options.delivery != Delivery::Memory {
        match outbox(&world.database_at(false))? {
            (0, 0) => {}
            (pending, dead) => trouble.push(format!("the outbox still holds {pending} rows, and {dead} dead letters")),
        }
    }
    let truth = rows(&world.database_at(false))?;
    let stored = patiently(|| entries(view, &truth))?;
    let first = compare(&truth, &stored, &allowed);
    println!("{} rows, {} entries; before repair: {first}", truth.len(), stored.len());
    let keeper = match (layout.owner, options.delivery) {
        _ if options.transport.is_some() => Keeper::Piped(crew, layout),
        (Some(owner), _) => Keeper::Other(crew, owner),
        (None, Delivery::Memory) => Keeper::Own(open(&job(world, options, false, 0))?.build()?),
        (None, _) => Keeper::Other(crew, layout.relays),
    };
    trouble.extend(disagreement(&first, &stored, &keeper)?);
    if first.is_clean() {
        return Ok(first);
    }
    match keeper.ask(cure) {
        Ok(told) => println!("{cure}: {told}"),
        Err(error) => trouble.push(format!("{cure}: {error}")),
    }
    let stored = patiently(|| entries(view, &truth))?;
    let second = compare(&truth, &stored, &Excuses::default());
    trouble.extend(disagreement(&second, &stored, &keeper)?);
    let mut verdict = first.unexcused();
    verdict.add(&second);
    Ok(verdict)
}

/// The verifier of kvsync has to find what this check finds; and what stands behind that, in records that nobody reads
/// but writers.
fn disagreement(verdict: &Verdict, stored: &HashMap<String, Seen>, keeper: &Keeper<'_>) -> Outcome<Option<String>> {
    let told = keeper.ask("verify")?;
    let told: BTreeMap<&str, &str> = told.split('\x1e').filter_map(|line| line.split_once('\t')).collect();
    let found = verdict.abouts();
    let hidden = |key: &str, told: &str| key.starts_with('~') || told.starts_with("ledger:");
    let more: Vec<_> = told.iter().filter(|(key, told)| !hidden(key, told) && !found.contains(**key)).collect();
    if more.is_empty() && found.iter().all(|key| told.contains_key(key.as_str())) {
        return Ok(None);
    }
    for (key, told) in more.into_iter().take(20) {
        println!("  kv.verify alone: {told}; there stands {:?}", stored.get(*key));
    }
    for key in found.iter().filter(|key| !told.contains_key(key.as_str())).take(20) {
        println!("  this check alone: `{key}`; there stands {:?}", stored.get(key));
    }
    Ok(Some("kv.verify and this check do not agree".into()))
}

/// Lets faults happen until enough was written.
fn play(options: &Options, world: &World, crew: &Crew, layout: Layout, watch: &Watch, played: &Played) -> Outcome {
    let (begin, over) = (Instant::now(), AtomicBool::new(false));
    let tell = !is_told_before(options);
    let last = Mutex::default();
    let stage = Stage { world, crew, layout, watch, over: &over, played, last: &last, tell };
    thread::scope(|scope| {
        let lanes: Vec<_> = Lane::ALL
            .into_iter()
            .map(|lane| {
                let (stage, events) = (&stage, script(options, lane));
                scope.spawn(move || {
                    let played = stage.play(begin, events);
                    // What cannot be played ends the run.
                    played.inspect_err(|_| stage.over.store(true, Ordering::SeqCst))
                })
            })
            .collect();
        let waited = wait_for_the_end(options, begin, &stage);
        over.store(true, Ordering::SeqCst);
        for lane in lanes {
            lane.join().map_err(|_| "a thread of the script panicked")??;
        }
        waited
    })
}

fn wait_for_the_end(options: &Options, begin: Instant, stage: &Stage<'_>) -> Outcome {
    let mut told = (begin, 0);
    while !is_interrupted() && !stage.over.load(Ordering::SeqCst) {
        let progress = stage.crew.progress()?;
        let over = match options.end {
            End::After(time) => begin.elapsed() >= time,
            End::Writes(writes) => progress.writes >= writes,
        };
        if told.0.elapsed() >= Duration::from_secs(2) || over {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = progress.writes.saturating_sub(told.1) as f64 / told.0.elapsed().as_secs_f64();
            let (faults, backlog) = (stage.played.lock().values().sum::<usize>(), progress.backlog);
            let seconds = begin.elapsed().as_secs_f64();
            let last = stage.last.lock().map(|fault| format!("; last {fault}")).unwrap_or_default();
            println!(
                "{seconds:6.1} s: writes={} ({rate:.0}/s) faults={faults} backlog={backlog}{last}",
                progress.writes
            );
            told = (Instant::now(), progress.writes);
        }
        if over {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn view(world: &World) -> Outcome<Arc<dyn View>> {
    Ok(match world.store_at(false) {
        StoreAt::Redis(url) => Arc::new(Direct(Arc::new(redis(&url)?))),
        StoreAt::Cluster(urls) => Arc::new(Direct(Arc::new(cluster(&urls)?))),
        StoreAt::Memory | StoreAt::Embedded(_) => Arc::new(Remote(world.socket())),
    })
}

/// So little that every outage of the store overflows it: primary keys are kept in place of rows, and when there is no
/// room for these, tables are filled in again.
const NARROW: usize = 64 << 10;
const WIDE: usize = 64 << 20;

/// What the processes do. Without an outbox the owner of a store does all of it by itself, as nobody else can reach the
/// store.
fn jobs(world: &World, options: &Options) -> (Vec<Job>, Layout) {
    let of = |place: usize| Job {
        singles: *[Singles::Never, Singles::Alone, Singles::Wrapped].get(place % 3).unwrap_or(&Singles::Never),
        queue: if place % 3 == 2 && options.delivery == Delivery::Memory { NARROW } else { WIDE },
        ..job(world, options, true, options.seed.wrapping_add((place as u64) << 48))
    };
    let owner = Job { socket: Some(world.socket()), refill: options.store == StoreKind::Memory, ..of(options.writers) };
    if options.delivery == Delivery::Memory && options.store.is_owned() && options.transport.is_none() {
        let singles = if options.seed.is_multiple_of(2) { Singles::Wrapped } else { Singles::Alone };
        let queue = if options.seed.is_multiple_of(3) { NARROW } else { WIDE };
        let job = Job { threads: options.writers, singles, queue, ..owner };
        return (vec![job], Layout { relays: 1, consumers: 1, owner: Some(0) });
    }
    let stranger = |place: usize| options.delivery == Delivery::Triggers && place % 2 == 1;
    let mut jobs: Vec<Job> = (0..options.writers).map(|place| Job { stranger: stranger(place), ..of(place) }).collect();
    let mut layout = Layout { relays: jobs.len(), consumers: jobs.len(), owner: None };
    let alone = options.store.is_owned() && options.transport.is_none();
    if options.delivery != Delivery::Memory {
        // Writers leave everything to the outbox; the store of an owner they could not even reach.
        for job in &mut jobs {
            job.relay = false;
            if alone {
                job.store = StoreAt::Memory;
            }
        }
        if alone {
            layout.owner = Some(jobs.len());
            jobs.push(Job { threads: 0, ..owner });
        } else {
            jobs.extend((0..RELAYS).map(|relay| Job { threads: 0, ..of(options.writers + relay) }));
        }
    }
    layout.consumers = jobs.len();
    if let Some(transport) = world.transport_at(Side::Consumers) {
        let shared = !options.store.is_owned();
        let consumer = |place: usize| Job {
            transport: Some(transport.clone()),
            relay: false,
            threads: 0,
            socket: (!shared).then(|| world.socket()),
            ..of(place)
        };
        jobs.extend((0..if shared { CONSUMERS } else { 1 }).map(|place| consumer(layout.consumers + place)));
    }
    (jobs, layout)
}

fn job(world: &World, options: &Options, through_faults: bool, seed: u64) -> Job {
    let (store, database) = (world.store_at(through_faults), world.database_at(through_faults));
    Job {
        writer: 0,
        seed,
        delivery: options.delivery,
        transport: world.transport_at(Side::Publishers),
        relay: through_faults,
        stranger: false,
        threads: 1,
        rows: options.rows,
        store,
        database,
        socket: None,
        refill: false,
        singles: Singles::Never,
        queue: WIDE,
    }
}

fn readers(options: &Options, watch: &Arc<Watch>, view: &Arc<dyn View>) -> Outcome<Vec<thread::JoinHandle<()>>> {
    let start = |number: u64| {
        let (watch, view) = (Arc::clone(watch), Arc::clone(view));
        let dice = Dice::new(options.seed ^ number.wrapping_add(1) << 40, options.rows, 0, false);
        Ok(thread::Builder::new().name("torture-reader".into()).spawn(move || watch.read(&view, dice))?)
    };
    (0..READERS).map(start).collect()
}

/// Notes Ctrl-C and its like; a second one ends the process at once, and then its children and servers end too.
fn listen() -> Outcome {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the flag is looked at before this signal sets it.
        register_conditional_shutdown(signal, 130, Arc::clone(&INTERRUPTED))?;
        register(signal, Arc::clone(&INTERRUPTED))?;
    }
    Ok(())
}
