//! Askers and the machines they ask, over a network that delays, loses, breaks and parts, with machines that freeze,
//! restart and have their clocks jump: whatever happens, at most one machine finishes a request, the client gets the whole
//! answer once and in order or a clear error, and nothing hangs.
//!
//! Everything follows from the seed: the world is a queue of events in the order of their times, and both sides are the
//! state machines the node runs. The last test breaks one rule at a time and sees that the checks notice.
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use hearth_dispatch::serving::Gone;
use hearth_dispatch::{Act, Attempt, CommitWhen, Frame, Input, Limits, Output, Run, Serving, Stop};

/// Times are microseconds from the start of the world.
const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
/// A connection whose other end vanished is given up by the system after this time at the latest.
const KEEPALIVE: u64 = 60 * SECOND;
const SEEDS: u64 = 10_000;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// Machines finish without waiting for the commit.
    FinishUncommitted,
    /// What an abandoned machine still says is taken for the word of its successor.
    TakeLateFrames,
    /// The asker never looks at its clock.
    NeverTick,
    /// A failure after the commit is answered by asking the next machine.
    RetryAfterCommit,
    /// An answer that may go on elsewhere is committed to with its first token.
    CommitEarly,
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// True in `percent` of cases.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// A request reaches its machine.
    Asked(usize),
    /// A commit reaches its machine.
    Committed(usize),
    /// A machine learns that its asker's connection is gone.
    Gone(usize),
    /// A machine's next step of a run.
    Work(usize),
    MachineTick(usize),
    /// A frame reaches its asker, with the number of the token.
    Said(usize, Frame, Option<usize>),
    Lost(usize),
    /// The answer to a commit: whether the run still is.
    CommitAnswered(usize, bool),
    AskerTick(usize),
    Restart(usize),
    Crash(usize),
    Jump,
    FreezeAsker(usize, u64),
    FreezeMachine(usize, u64),
}

/// What a machine does for a run.
#[derive(Debug, Clone)]
enum Step {
    Say(Frame),
    Token(usize),
    End,
    Fail(u16, &'static str),
}

struct Machine {
    /// Down until then.
    down: u64,
    frozen: u64,
    /// What its clock is ahead, in microseconds.
    clock: i64,
}

struct Connection {
    request: usize,
    machine: usize,
    candidate: usize,
    from: usize,
    when: CommitWhen,
    breaks: u64,
    /// When the last message each way arrives: a stream keeps its order.
    to_asker: u64,
    to_machine: u64,
    run: Option<Serve>,
    finished: bool,
}

struct Serve {
    serving: Serving,
    script: VecDeque<(u64, Step)>,
    tick: u64,
}

struct Request {
    run: Run,
    machines: Vec<usize>,
    connections: Vec<Option<usize>>,
    resume: bool,
    length: usize,
    bad: bool,
    client: Vec<(usize, usize)>,
    outcome: Option<Result<(), String>>,
    crashed: bool,
    commits: Vec<usize>,
    finishes: usize,
    tick: u64,
    frozen: u64,
    clock: i64,
    /// When the current machine was asked or heard last; nothing if the asker stood still since.
    heard: Option<u64>,
    /// Its clock jumped: what it takes for three seconds is something else.
    jumped: bool,
}

/// What happened over many worlds, to know that the cases of interest were among them.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    replaced: u64,
    resumed: u64,
    failed_before: u64,
    failed_after: u64,
    not_committed: u64,
    late: u64,
    events: u64,
}

struct World<'a> {
    random: Random,
    mutation: Mutation,
    base: Instant,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    machines: Vec<Machine>,
    /// Machines from here on belong to the askers themselves.
    peers: usize,
    connections: Vec<Connection>,
    requests: Vec<Request>,
    /// Partitions: asker, machine, from, to.
    partitions: Vec<(usize, usize, u64, u64)>,
    tally: &'a mut Tally,
}

impl World<'_> {
    fn at(&mut self, time: u64, event: Event) {
        let slot = self.events.len();
        self.events.push(Some(event));
        self.sequence += 1;
        self.queue
            .push(Reverse((time.max(self.now), self.sequence, slot)));
    }

    fn clock(&self, ahead: i64) -> Instant {
        let start = 1_000 * SECOND as i64;
        let micros = start + self.now as i64 + ahead;
        self.base + Duration::from_micros(micros.max(0) as u64)
    }

    /// World time of a moment on a clock.
    fn world(&self, moment: Instant, ahead: i64) -> u64 {
        let start = 1_000 * SECOND as i64;
        let micros = moment.duration_since(self.base).as_micros() as i64;
        // Rounded up, so that what is due then is due.
        ((micros - start - ahead).max(0) as u64 + 1).max(self.now + 1)
    }

    /// When a message between the two arrives; the second says whether they are parted now.
    fn travel(&mut self, asker: usize, machine: usize) -> (u64, bool) {
        if machine >= self.peers {
            return (self.now + 20, false);
        }
        let delay = if self.random.chance(3) {
            self.random.between(100 * MS, 2 * SECOND)
        } else {
            self.random.between(200, 30 * MS)
        };
        let arrival = self.now + delay;
        let parted = self.partitions.iter().find(|(a, m, from, to)| {
            *a == asker && *m == machine && *from <= arrival && arrival < *to
        });
        match parted {
            Some((_, _, _, to)) => (*to + delay, true),
            None => (arrival, false),
        }
    }

    fn say(&mut self, connection: usize, frame: Frame, token: Option<usize>) {
        let (asker, machine) = self.ends(connection);
        let (arrival, _) = self.travel(asker, machine);
        let it = &mut self.connections[connection];
        let arrival = arrival.max(it.to_asker + 1);
        it.to_asker = arrival;
        if arrival < it.breaks {
            self.at(arrival, Event::Said(connection, frame, token));
        }
    }

    fn ends(&self, connection: usize) -> (usize, usize) {
        let it = &self.connections[connection];
        (it.request, it.machine)
    }

    /// The asker's end is closed, or its process is gone; the machine learns it, sooner or later.
    fn close(&mut self, connection: usize) {
        let (asker, machine) = self.ends(connection);
        let (arrival, parted) = self.travel(asker, machine);
        let arrival = if parted || arrival >= self.connections[connection].breaks {
            self.now + self.random.below(KEEPALIVE)
        } else {
            arrival.max(self.connections[connection].to_machine + 1)
        };
        self.at(arrival, Event::Gone(connection));
    }

    fn connect(&mut self, request: usize, candidate: usize, resume: bool) {
        let machine = self.requests[request].machines[candidate];
        let local = machine >= self.peers;
        let breaks = if !local && self.random.chance(15) {
            self.now + self.random.below(8 * SECOND)
        } else {
            u64::MAX
        };
        let (arrival, _) = self.travel(request, machine);
        let resumes = self.requests[request].resume;
        let from = if resume {
            self.requests[request].client.len()
        } else {
            0
        };
        self.connections.push(Connection {
            request,
            machine,
            candidate,
            from,
            when: if resumes && self.mutation != Mutation::CommitEarly {
                CommitWhen::Held
            } else {
                CommitWhen::FirstToken
            },
            breaks,
            to_asker: 0,
            to_machine: arrival,
            run: None,
            finished: false,
        });
        let connection = self.connections.len() - 1;
        self.requests[request].connections[candidate] = Some(connection);
        if arrival < breaks {
            self.at(arrival, Event::Asked(connection));
        }
        if breaks != u64::MAX {
            if self.random.chance(60) {
                let notice = breaks + self.random.below(2 * SECOND);
                self.at(notice, Event::Lost(connection));
            }
            let notice = breaks + self.random.below(KEEPALIVE);
            self.at(notice, Event::Gone(connection));
        }
    }

    fn send_commit(&mut self, connection: usize) {
        let (asker, machine) = self.ends(connection);
        for _ in 0..1 + u64::from(self.random.chance(5)) {
            let (arrival, parted) = self.travel(asker, machine);
            let local = machine >= self.peers;
            if local || !(parted || self.random.chance(8)) {
                self.at(arrival, Event::Committed(connection));
            }
        }
    }

    /// What a machine is going to do for a request: everything it says comes at most half a second late unless it fails,
    /// because [`Serving`] sees to that.
    fn script(&mut self, request: usize, from: usize) -> VecDeque<(u64, Step)> {
        let mut script = VecDeque::new();
        let (length, bad) = (self.requests[request].length, self.requests[request].bad);
        if bad {
            script.push_back((MS, Step::Fail(400, "invalid_value")));
            return script;
        }
        if self.random.chance(8) {
            let status = [503, 429, 404, 500][self.random.below(4) as usize];
            script.push_back((self.random.below(SECOND), Step::Fail(status, "not_ready")));
            return script;
        }
        for (frame, most) in [
            (Frame::Queued, 6 * SECOND),
            (Frame::Loading, 8 * SECOND),
            (Frame::Prefilling, 5 * SECOND),
        ] {
            if self.random.chance(30) {
                script.push_back((self.random.below(most), Step::Say(frame)));
            }
        }
        let slow = self.random.chance(20);
        // An engine that hangs, and is noticed at last.
        let hangs = self
            .random
            .chance(3)
            .then(|| from as u64 + self.random.below(6));
        for token in from..length {
            if hangs == Some(token as u64) {
                script.push_back((45 * SECOND, Step::Fail(500, "engine_failed")));
                return script;
            }
            let pause = if slow { 1_500 * MS } else { 60 * MS };
            script.push_back((self.random.below(pause), Step::Token(token)));
            if self.random.chance(1) {
                script.push_back((self.random.below(SECOND), Step::Fail(500, "engine_failed")));
                return script;
            }
        }
        script.push_back((self.random.below(50 * MS), Step::End));
        script
    }

    /// Does what the asker's state machine says. `said` is the token of the frame just handled, with its machine.
    fn pump(&mut self, request: usize, said: Option<(usize, usize)>) -> Result<(), String> {
        while let Some(output) = self.requests[request].run.poll() {
            if self.requests[request].outcome.is_some() {
                return Err(format!("{output:?} after the end"));
            }
            match output {
                Output::Connect { candidate, resume } => {
                    let it = &mut self.requests[request];
                    if it.connections[candidate].is_some() {
                        return Err(format!("candidate {candidate} is asked twice"));
                    }
                    if it.connections.iter().any(Option::is_some) {
                        self.tally.replaced += 1;
                        self.tally.resumed += u64::from(resume);
                        if let Some(heard) = it.heard
                            && !it.jumped
                            && self.now > heard + 3 * SECOND + 2 * MS
                        {
                            return Err("the next machine was asked late".into());
                        }
                    }
                    it.heard = Some(self.now);
                    self.connect(request, candidate, resume);
                }
                Output::Abandon { candidate } => {
                    if let Some(connection) = self.requests[request].connections[candidate] {
                        self.close(connection);
                    }
                }
                Output::Commit { candidate } => {
                    self.requests[request].commits.push(candidate);
                    let connection = self.requests[request].connections[candidate].unwrap();
                    self.send_commit(connection);
                }
                Output::Deliver { .. } => {
                    let (token, machine) = said.ok_or("nothing to deliver")?;
                    self.requests[request].client.push((token, machine));
                    if self.mutation == Mutation::CommitEarly && self.requests[request].resume {
                        let candidate = self.requests[request]
                            .machines
                            .iter()
                            .position(|other| *other == machine)
                            .unwrap();
                        let connection = self.requests[request].connections[candidate].unwrap();
                        self.send_commit(connection);
                    }
                }
                Output::Fail(failure) => {
                    if failure.code.is_empty() || failure.message.is_empty() {
                        return Err("an error that says nothing".into());
                    }
                    let it = &mut self.requests[request];
                    if failure.after_first_token == it.client.is_empty() {
                        return Err("the error is wrong about what the client has".into());
                    }
                    if self.mutation == Mutation::RetryAfterCommit && failure.after_first_token {
                        let untried: Vec<Attempt> = (0..it.machines.len())
                            .filter(|candidate| it.connections[*candidate].is_none())
                            .map(|candidate| Attempt {
                                candidate,
                                here: false,
                            })
                            .collect();
                        if !untried.is_empty() {
                            it.heard = None;
                            let now = self.clock(self.requests[request].clock);
                            self.requests[request].run = Run::new(untried, limits(false), now);
                            continue;
                        }
                    }
                    if failure.after_first_token {
                        self.tally.failed_after += 1;
                    } else {
                        self.tally.failed_before += 1;
                    }
                    self.requests[request].outcome = Some(Err(failure.code));
                }
                Output::Finish { .. } => {
                    self.tally.answered += 1;
                    self.requests[request].outcome = Some(Ok(()));
                }
            }
        }
        self.schedule_asker(request);
        Ok(())
    }

    fn schedule_asker(&mut self, request: usize) {
        let it = &self.requests[request];
        if self.mutation == Mutation::NeverTick || it.crashed {
            return;
        }
        if let Some(deadline) = it.run.deadline() {
            let time = self.world(deadline, it.clock);
            if time != it.tick {
                self.requests[request].tick = time;
                self.at(time, Event::AskerTick(request));
            }
        }
    }

    fn schedule_machine(&mut self, connection: usize) {
        let ahead = self.machines[self.connections[connection].machine].clock;
        let Some(run) = &self.connections[connection].run else {
            return;
        };
        if let Some(deadline) = run.serving.deadline() {
            let time = self.world(deadline, ahead);
            if time != run.tick {
                self.connections[connection].run.as_mut().unwrap().tick = time;
                self.at(time, Event::MachineTick(connection));
            }
        }
    }

    fn act(&mut self, connection: usize, act: Option<Act>) {
        match act {
            None => {}
            Some(Act::Working) => self.say(connection, Frame::Working, None),
            Some(Act::Hold) if self.mutation == Mutation::FinishUncommitted => {
                self.finish(connection);
            }
            Some(Act::Hold) => self.say(connection, Frame::Held, None),
            Some(Act::Finish) => self.finish(connection),
            Some(Act::Stop(stop)) => {
                if stop == Stop::NotCommitted {
                    self.tally.not_committed += 1;
                    self.say(connection, error(409, "not_committed"), None);
                }
                self.connections[connection].run = None;
            }
        }
    }

    fn finish(&mut self, connection: usize) {
        let request = self.connections[connection].request;
        self.requests[request].finishes += 1;
        self.connections[connection].finished = true;
        self.say(connection, Frame::Done, None);
        self.connections[connection].run = None;
    }

    /// One step of a machine's run.
    fn work(&mut self, connection: usize) {
        let machine = self.connections[connection].machine;
        let now = self.clock(self.machines[machine].clock);
        let Some(run) = &mut self.connections[connection].run else {
            return;
        };
        let Some((_, step)) = run.script.pop_front() else {
            return;
        };
        match step {
            Step::Say(frame) => {
                run.serving.spoke(now);
                self.say(connection, frame, None);
            }
            Step::Token(token) => {
                if run.serving.token(now) {
                    self.say(connection, Frame::Token, Some(token));
                }
            }
            Step::Fail(status, code) => {
                run.serving.failed();
                self.connections[connection].run = None;
                self.say(connection, error(status, code), None);
            }
            Step::End => {
                let act = run.serving.end(now);
                self.act(connection, act);
            }
        }
        self.next_step(connection);
        self.schedule_machine(connection);
    }

    fn next_step(&mut self, connection: usize) {
        if let Some(run) = &self.connections[connection].run
            && let Some((delay, _)) = run.script.front()
        {
            let time = self.now + delay;
            self.at(time, Event::Work(connection));
        }
    }

    /// The machine an event happens on, if it does not happen to its asker.
    fn machine_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Asked(connection)
            | Event::Committed(connection)
            | Event::Gone(connection)
            | Event::Work(connection)
            | Event::MachineTick(connection) => Some(self.connections[*connection].machine),
            _ => None,
        }
    }

    fn asker_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Said(connection, ..)
            | Event::Lost(connection)
            | Event::CommitAnswered(connection, _) => Some(self.connections[*connection].request),
            Event::AskerTick(request) => Some(*request),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        if let Some(machine) = self.machine_of(&event)
            && self.machines[machine].frozen > self.now
        {
            self.at(self.machines[machine].frozen, event);
            return Ok(());
        }
        if let Some(asker) = self.asker_of(&event) {
            if self.requests[asker].crashed {
                return Ok(());
            }
            if self.requests[asker].frozen > self.now {
                self.at(self.requests[asker].frozen, event);
                return Ok(());
            }
        }
        match event {
            Event::Asked(connection) => {
                let (request, machine) = self.ends(connection);
                if self.machines[machine].down > self.now {
                    let (arrival, _) = self.travel(request, machine);
                    self.at(arrival, Event::Lost(connection));
                    return Ok(());
                }
                let now = self.clock(self.machines[machine].clock);
                let it = &self.connections[connection];
                let (when, from) = (it.when, it.from);
                let script = self.script(request, from);
                self.connections[connection].run = Some(Serve {
                    serving: Serving::new(when, now),
                    script,
                    tick: 0,
                });
                self.say(connection, Frame::Accepted, None);
                self.next_step(connection);
                self.schedule_machine(connection);
            }
            Event::Committed(connection) => {
                let (request, machine) = self.ends(connection);
                let now = self.clock(self.machines[machine].clock);
                let it = &mut self.connections[connection];
                let answer = match &mut it.run {
                    Some(run) => run.serving.commit(now),
                    None if it.finished => Ok(None),
                    // Given up, failed, or forgotten in a restart.
                    None => Err(Gone),
                };
                let alive = answer.is_ok();
                self.act(connection, answer.unwrap_or(None));
                self.schedule_machine(connection);
                let (arrival, parted) = self.travel(request, machine);
                if !parted && !self.random.chance(5) {
                    self.at(arrival, Event::CommitAnswered(connection, alive));
                }
            }
            Event::Gone(connection) => {
                let act = match &mut self.connections[connection].run {
                    Some(run) => run.serving.asker_gone(),
                    None => None,
                };
                self.act(connection, act);
            }
            Event::Work(connection) => self.work(connection),
            Event::MachineTick(connection) => {
                let ahead = self.machines[self.connections[connection].machine].clock;
                let now = self.clock(ahead);
                let Some(run) = &mut self.connections[connection].run else {
                    return Ok(());
                };
                if run.tick > self.now {
                    return Ok(());
                }
                let act = run.serving.tick(now);
                self.act(connection, act);
                self.schedule_machine(connection);
            }
            Event::Said(connection, frame, token) => {
                self.hear(connection, Input::Frame(frame), token)?;
            }
            Event::Lost(connection) => {
                self.hear(connection, Input::Lost("the connection broke".into()), None)?;
            }
            Event::CommitAnswered(connection, alive) => {
                let input = if alive {
                    Input::Committed
                } else {
                    Input::Lost("the run was given up".into())
                };
                self.hear(connection, input, None)?;
            }
            Event::AskerTick(request) => {
                if self.requests[request].tick > self.now {
                    return Ok(());
                }
                let now = self.clock(self.requests[request].clock);
                self.requests[request].run.tick(now);
                self.pump(request, None)?;
            }
            Event::Restart(machine) => {
                self.machines[machine].down = self.now + self.random.below(5 * SECOND);
                for connection in 0..self.connections.len() {
                    if self.connections[connection].machine == machine
                        && self.connections[connection].run.take().is_some()
                        && self.random.chance(70)
                    {
                        let (arrival, _) =
                            self.travel(self.connections[connection].request, machine);
                        self.at(arrival, Event::Lost(connection));
                    }
                }
            }
            Event::Crash(request) => {
                self.requests[request].crashed = true;
                for connection in self.requests[request]
                    .connections
                    .clone()
                    .into_iter()
                    .flatten()
                {
                    self.close(connection);
                }
            }
            Event::Jump => {
                let jump = self.random.below(20 * SECOND) as i64 - 5 * SECOND as i64;
                let who = self
                    .random
                    .below((self.machines.len() + self.requests.len()) as u64);
                let who = who as usize;
                if who < self.machines.len() {
                    self.machines[who].clock += jump;
                    for connection in 0..self.connections.len() {
                        if self.connections[connection].machine == who {
                            self.schedule_machine(connection);
                        }
                    }
                } else {
                    let request = who - self.machines.len();
                    self.requests[request].clock += jump;
                    self.requests[request].jumped = true;
                    self.schedule_asker(request);
                }
            }
            Event::FreezeAsker(request, time) => {
                self.requests[request].frozen = self.now + time;
                self.requests[request].heard = None;
            }
            Event::FreezeMachine(machine, time) => self.machines[machine].frozen = self.now + time,
        }
        Ok(())
    }

    /// Something reaches the asker.
    fn hear(
        &mut self,
        connection: usize,
        input: Input,
        token: Option<usize>,
    ) -> Result<(), String> {
        let (request, machine) = self.ends(connection);
        let mut candidate = self.connections[connection].candidate;
        let it = &self.requests[request];
        // The newest connection is the current one.
        let current = it
            .connections
            .iter()
            .flatten()
            .max()
            .is_some_and(|newest| *newest == connection);
        if !current && it.outcome.is_none() {
            self.tally.late += 1;
            if self.mutation == Mutation::TakeLateFrames {
                let newest = it.connections.iter().flatten().max().unwrap();
                candidate = self.connections[*newest].candidate;
            }
        }
        let now = self.clock(self.requests[request].clock);
        if current && self.requests[request].heard.is_some() && matches!(input, Input::Frame(_)) {
            self.requests[request].heard = Some(self.now);
        }
        self.requests[request].run.handle(now, candidate, input);
        self.pump(request, token.map(|token| (token, machine)))
    }

    fn judge(&self) -> Result<(), String> {
        for (index, it) in self.requests.iter().enumerate() {
            let wrong = |what: String| Err(format!("request {index}: {what}"));
            if it.finishes > 1 {
                return wrong(format!("{} machines finished it", it.finishes));
            }
            if it
                .commits
                .iter()
                .any(|candidate| *candidate != it.commits[0])
            {
                return wrong("it was committed to two machines".into());
            }
            let tokens = it.client.iter().map(|(token, _)| *token);
            if !tokens.eq(0..it.client.len()) {
                return wrong(format!("the client got {:?}", it.client));
            }
            if !it.resume
                && it
                    .client
                    .iter()
                    .any(|(_, machine)| *machine != it.client[0].1)
            {
                return wrong("two machines' answers were mixed".into());
            }
            match &it.outcome {
                None if it.crashed => {}
                None => return wrong("it hangs".into()),
                Some(Ok(())) if it.client.len() != it.length => {
                    return wrong(format!("{} of {} tokens", it.client.len(), it.length));
                }
                Some(Ok(())) if it.finishes != 1 => return wrong("nobody finished it".into()),
                _ => {}
            }
        }
        for connection in &self.connections {
            if connection.run.is_some() {
                return Err("a machine works for nobody, for ever".into());
            }
        }
        Ok(())
    }
}

fn error(status: u16, code: &str) -> Frame {
    Frame::Error {
        status,
        code: code.into(),
        message: "it failed, as it was to".into(),
    }
}

fn limits(resume: bool) -> Limits {
    Limits {
        patience: Duration::from_secs(30),
        resume,
        ..Limits::default()
    }
}

/// Runs the world of a seed to its end; what went wrong, if anything did.
fn world(seed: u64, mutation: Mutation, tally: &mut Tally, base: Instant) -> Result<(), String> {
    let mut random = Random(seed);
    let peers = random.between(1, 5) as usize;
    let askers = random.between(1, 4) as usize;
    let mut world = World {
        mutation,
        base,
        now: 0,
        sequence: 0,
        queue: BinaryHeap::new(),
        events: Vec::new(),
        machines: (0..peers + askers)
            .map(|_| Machine {
                down: 0,
                frozen: 0,
                clock: random.below(10 * SECOND) as i64,
            })
            .collect(),
        peers,
        connections: Vec::new(),
        requests: Vec::new(),
        partitions: Vec::new(),
        tally,
        random,
    };
    for asker in 0..askers {
        let random = &mut world.random;
        let mut machines: Vec<usize> = (0..peers).collect();
        if random.chance(40) {
            machines.push(peers + asker);
        }
        for index in (1..machines.len()).rev() {
            machines.swap(index, random.below(index as u64 + 1) as usize);
        }
        let attempts = machines.iter().enumerate();
        let attempts: Vec<Attempt> = attempts
            .map(|(candidate, machine)| Attempt {
                candidate,
                here: *machine >= peers,
            })
            .collect();
        let resume = random.chance(40);
        let (length, bad) = (random.below(25) as usize, random.chance(4));
        let crashes = random.chance(10).then(|| random.below(10 * SECOND));
        for machine in 0..peers {
            while random.chance(25) {
                let from = random.below(15 * SECOND);
                let length = random.below(10 * SECOND);
                world.partitions.push((asker, machine, from, from + length));
            }
        }
        let clock = random.below(10 * SECOND) as i64;
        let freeze = random
            .chance(8)
            .then(|| (random.below(8 * SECOND), random.below(6 * SECOND)));
        let run = Run::new(attempts, limits(resume), world.clock(clock));
        world.requests.push(Request {
            run,
            connections: vec![None; machines.len()],
            machines,
            resume,
            length,
            bad,
            client: Vec::new(),
            outcome: None,
            crashed: false,
            commits: Vec::new(),
            finishes: 0,
            tick: 0,
            frozen: 0,
            clock,
            heard: None,
            jumped: false,
        });
        if let Some(time) = crashes {
            world.at(time, Event::Crash(asker));
        }
        if let Some((time, length)) = freeze {
            world.at(time, Event::FreezeAsker(asker, length));
        }
    }
    for machine in 0..peers {
        if world.random.chance(25) {
            let time = world.random.below(15 * SECOND);
            world.at(time, Event::Restart(machine));
        }
        if world.random.chance(15) {
            let (time, length) = (
                world.random.below(10 * SECOND),
                world.random.below(20 * SECOND),
            );
            world.at(time, Event::FreezeMachine(machine, length));
        }
    }
    for _ in 0..world.random.below(3) {
        if world.random.chance(40) {
            let time = world.random.below(15 * SECOND);
            world.at(time, Event::Jump);
        }
    }
    for asker in 0..askers {
        world.pump(asker, None)?;
    }
    for _ in 0..200_000 {
        let Some(Reverse((time, _, slot))) = world.queue.pop() else {
            return world.judge();
        };
        world.now = time;
        world.tally.events += 1;
        let event = world.events[slot].take().unwrap();
        world.happen(event)?;
    }
    Err("it never comes to rest".into())
}

#[test]
fn whatever_happens_a_request_runs_to_its_end_once_at_most() {
    let base = Instant::now();
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        if let Err(wrong) = world(seed, Mutation::None, &mut tally, base) {
            panic!("seed {seed}: {wrong}");
        }
    }
    println!("{tally:?}");
    // The cases of interest were among them.
    for (what, count) in [
        ("answered", tally.answered),
        ("replaced", tally.replaced),
        ("resumed", tally.resumed),
        ("failed before the first token", tally.failed_before),
        ("failed after it", tally.failed_after),
        ("given up without a commit", tally.not_committed),
        ("late frames", tally.late),
    ] {
        assert!(count > 50, "{what}: {count}");
    }
}

#[test]
fn a_broken_rule_is_noticed() {
    let base = Instant::now();
    for mutation in [
        Mutation::FinishUncommitted,
        Mutation::TakeLateFrames,
        Mutation::NeverTick,
        Mutation::RetryAfterCommit,
        Mutation::CommitEarly,
    ] {
        let mut tally = Tally::default();
        let noticed = (0..SEEDS).find_map(|seed| {
            let wrong = world(seed, mutation, &mut tally, base).err()?;
            Some((seed, wrong))
        });
        let (seed, wrong) = noticed.unwrap_or_else(|| panic!("{mutation:?} goes unnoticed"));
        println!("{mutation:?}: seed {seed}: {wrong}");
    }
}
