//! The rules of a request's way from machine to machine, one by one; and that no order of events breaks them.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hearth_dispatch::serving::{GRACE, Gone};
use hearth_dispatch::{
    Act, Attempt, CommitWhen, Failure, Frame, Input, Limits, Output, Run, Serving, Stop,
};
use proptest::prelude::*;

struct Driven {
    run: Run,
    now: Instant,
}

impl Driven {
    fn new(candidates: usize, limits: Limits) -> Self {
        let now = Instant::now();
        let attempts = (0..candidates).map(|candidate| Attempt {
            candidate,
            here: false,
        });
        Self {
            run: Run::new(attempts, limits, now),
            now,
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.run.poll()).collect()
    }

    fn frame(&mut self, candidate: usize, frame: Frame) -> Vec<Output> {
        self.input(candidate, Input::Frame(frame))
    }

    fn input(&mut self, candidate: usize, input: Input) -> Vec<Output> {
        self.run.handle(self.now, candidate, input);
        self.outputs()
    }

    fn pass(&mut self, milliseconds: u64) -> Vec<Output> {
        self.now += Duration::from_millis(milliseconds);
        self.run.tick(self.now);
        self.outputs()
    }
}

fn connect(candidate: usize) -> Output {
    Output::Connect {
        candidate,
        resume: false,
    }
}

fn error(status: u16, code: &str) -> Frame {
    Frame::Error {
        status,
        code: code.into(),
        message: "why".into(),
    }
}

fn failure(outputs: &[Output]) -> &Failure {
    match outputs.last() {
        Some(Output::Fail(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_committed_to_with_its_first_token_and_delivered_to_the_end() {
    let mut it = Driven::new(2, Limits::default());
    assert_eq!(it.outputs(), [connect(0)]);
    for frame in [Frame::Accepted, Frame::Queued, Frame::Prefilling] {
        assert_eq!(it.frame(0, frame), []);
    }
    let (commit, deliver) = (
        Output::Commit { candidate: 0 },
        Output::Deliver { candidate: 0 },
    );
    assert_eq!(it.frame(0, Frame::Token), [commit.clone(), deliver.clone()]);
    assert_eq!(it.frame(0, Frame::Token), [deliver]);
    assert_eq!(it.pass(600), [commit], "until the machine knows");
    assert_eq!(it.input(0, Input::Committed), []);
    assert_eq!(it.pass(600), []);
    assert_eq!(it.frame(0, Frame::Held), []);
    assert_eq!(it.frame(0, Frame::Done), [Output::Finish { candidate: 0 }]);
    assert!(it.run.is_over() && it.run.deadline().is_none());
}

#[test]
fn a_machine_that_works_may_take_its_time_and_one_that_is_silent_may_not() {
    let mut it = Driven::new(2, Limits::default());
    it.outputs();
    for _ in 0..200 {
        assert_eq!(it.pass(2_900), [] as [Output; 0]);
        it.frame(0, Frame::Working);
    }
    let next = [Output::Abandon { candidate: 0 }, connect(1)];
    assert_eq!(it.pass(3_000), next);
    assert_eq!(it.frame(0, Frame::Token), [], "too late");
    let outputs = it.pass(3_000);
    assert_eq!(failure(&outputs).code, "peer_silent");
}

#[test]
fn this_machine_is_never_taken_for_dead() {
    let now = Instant::now();
    let attempts = [Attempt {
        candidate: 0,
        here: true,
    }];
    let mut run = Run::new(attempts, Limits::default(), now);
    run.poll();
    run.tick(now + Duration::from_secs(60));
    assert_eq!(run.poll(), None);
    run.tick(now + Duration::from_secs(600));
    assert_eq!(run.poll(), Some(Output::Abandon { candidate: 0 }));
    assert!(matches!(run.poll(), Some(Output::Fail(failure)) if failure.code == "too_slow"));
}

#[test]
fn this_machine_is_done_when_it_says_so() {
    let now = Instant::now();
    let attempts = [Attempt {
        candidate: 0,
        here: true,
    }];
    let mut run = Run::new(attempts, Limits::default(), now);
    run.poll();
    run.handle(now, 0, Input::Frame(Frame::Done));
    assert_eq!(
        run.poll(),
        Some(Output::Finish { candidate: 0 }),
        "an empty answer is one"
    );
}

#[test]
fn whose_fault_it_is_decides_who_comes_next() {
    for (status, replaced) in [
        (400, false),
        (413, false),
        (422, false),
        (401, true),
        (403, true),
        (404, true),
        (409, true),
        (429, true),
        (500, true),
        (503, true),
    ] {
        let mut it = Driven::new(2, Limits::default());
        it.outputs();
        let outputs = it.frame(0, error(status, "some_code"));
        assert_eq!(outputs.contains(&connect(1)), replaced, "{status}");
        if !replaced {
            let failure = failure(&outputs);
            assert_eq!(
                (failure.status, failure.code.as_str()),
                (status, "some_code")
            );
        }
    }
}

#[test]
fn of_several_failures_the_client_hears_the_one_that_says_most() {
    let mut it = Driven::new(3, Limits::default());
    it.outputs();
    it.input(0, Input::Lost("refused".into()));
    it.frame(1, error(503, "model_loading"));
    let outputs = it.pass(3_000);
    let failure = failure(&outputs);
    assert_eq!(
        (failure.code.as_str(), failure.candidate),
        ("model_loading", Some(1))
    );
    assert_eq!((failure.attempts, failure.after_first_token), (3, false));
}

#[test]
fn after_the_commit_a_failure_ends_the_answer() {
    let mut it = Driven::new(2, Limits::default());
    it.outputs();
    it.frame(0, Frame::Token);
    let outputs = it.input(0, Input::Lost("the cable was pulled".into()));
    let failure = failure(&outputs);
    assert!(failure.after_first_token);
    assert_eq!(failure.message, "the cable was pulled");
    assert!(!outputs.contains(&connect(1)));
}

#[test]
fn an_answer_goes_on_elsewhere_where_the_client_asked_for_it() {
    let limits = Limits {
        resume: true,
        ..Limits::default()
    };
    let mut it = Driven::new(2, limits);
    it.outputs();
    assert_eq!(
        it.frame(0, Frame::Token),
        [Output::Deliver { candidate: 0 }]
    );
    let resumed = Output::Connect {
        candidate: 1,
        resume: true,
    };
    let outputs = it.input(0, Input::Lost("gone".into()));
    assert_eq!(outputs, [Output::Abandon { candidate: 0 }, resumed]);
    it.frame(1, Frame::Token);
    assert_eq!(it.frame(1, Frame::Held), [Output::Commit { candidate: 1 }]);
    assert_eq!(it.frame(1, Frame::Done), [Output::Finish { candidate: 1 }]);
}

#[test]
fn nobody_to_ask_is_an_error_too_and_so_is_an_end_nobody_asked_for() {
    let mut it = Driven::new(0, Limits::default());
    assert_eq!(failure(&it.outputs()).code, "no_machine");
    let mut it = Driven::new(1, Limits::default());
    it.outputs();
    assert_eq!(failure(&it.frame(0, Frame::Done)).code, "peer_protocol");
}

#[test]
fn attempts_are_bounded() {
    let limits = Limits {
        attempts: 2,
        ..Limits::default()
    };
    let mut it = Driven::new(5, limits);
    it.outputs();
    it.input(0, Input::Lost("refused".into()));
    let outputs = it.input(1, Input::Lost("refused".into()));
    assert_eq!(failure(&outputs).attempts, 2);
}

#[test]
fn a_client_that_leaves_is_followed_by_nobody() {
    let mut it = Driven::new(2, Limits::default());
    it.outputs();
    it.run.cancel();
    assert_eq!(it.outputs(), [Output::Abandon { candidate: 0 }]);
    assert_eq!(it.frame(0, Frame::Token), []);
    assert_eq!(it.pass(10_000), []);
}

#[test]
fn a_machine_holds_the_end_back_until_somebody_commits() {
    let now = Instant::now();
    let mut serving = Serving::new(CommitWhen::FirstToken, now);
    assert!(serving.token(now));
    assert_eq!(serving.end(now), Some(Act::Hold));
    assert_eq!(serving.commit(now), Ok(Some(Act::Finish)));
    assert_eq!(serving.commit(now), Ok(None), "a commit may come twice");
    assert_eq!((serving.asker_gone(), serving.deadline()), (None, None));
}

#[test]
fn a_machine_nobody_commits_to_gives_up() {
    let now = Instant::now();
    let mut serving = Serving::new(CommitWhen::FirstToken, now);
    serving.token(now);
    assert_eq!(
        serving.tick(now + GRACE),
        Some(Act::Stop(Stop::NotCommitted))
    );
    assert_eq!(serving.commit(now + GRACE), Err(Gone));
    assert!(!serving.token(now + GRACE));

    let mut patient = Serving::new(CommitWhen::Held, now);
    patient.token(now);
    assert_eq!(
        patient.tick(now + GRACE),
        Some(Act::Working),
        "it may still go elsewhere"
    );
    assert_eq!(patient.end(now + 2 * GRACE), Some(Act::Hold));
    assert_eq!(
        patient.tick(now + 3 * GRACE),
        Some(Act::Stop(Stop::NotCommitted))
    );
}

#[test]
fn a_machine_says_that_it_works() {
    let now = Instant::now();
    let mut serving = Serving::new(CommitWhen::FirstToken, now);
    assert_eq!(serving.tick(now + Duration::from_millis(400)), None);
    assert_eq!(
        serving.tick(serving.deadline().unwrap()),
        Some(Act::Working)
    );
    assert_eq!(serving.asker_gone(), Some(Act::Stop(Stop::AskerGone)));
    assert_eq!(serving.end(now), None);
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Committed),
        Just(Input::Lost("lost".into())),
        Just(Input::Frame(Frame::Accepted)),
        Just(Input::Frame(Frame::Working)),
        Just(Input::Frame(Frame::Held)),
        Just(Input::Frame(Frame::Done)),
        Just(Input::Frame(Frame::Token)),
        Just(Input::Frame(Frame::Token)),
        Just(Input::Frame(Frame::Token)),
        prop::sample::select(vec![400, 404, 429, 500, 503])
            .prop_map(|status| Input::Frame(error(status, "code"))),
    ]
}

proptest! {
    /// Whatever machines say, in whatever order, also against all rules: each is asked once at most, one alone is committed
    /// to, nothing is delivered from one that was abandoned, one end comes, and nothing after it. With time alone, an end
    /// always comes.
    #[test]
    fn no_order_of_events_breaks_the_rules(
        candidates in 0usize..6,
        resume in any::<bool>(),
        events in prop::collection::vec((0usize..6, input(), 0u64..4_000), 0..60),
    ) {
        let limits = Limits { resume, patience: Duration::from_secs(60), ..Limits::default() };
        let mut it = Driven::new(candidates, limits);
        let mut outputs = it.outputs();
        for (candidate, input, pause) in events {
            outputs.extend(it.pass(pause));
            outputs.extend(it.input(candidate, input));
        }
        for _ in 0..100 {
            let Some(deadline) = it.run.deadline() else { break };
            it.now = it.now.max(deadline);
            outputs.extend(it.pass(0));
        }
        prop_assert!(it.run.is_over());
        let mut asked = Vec::new();
        let mut current = None;
        let mut committed = None;
        for (index, output) in outputs.iter().enumerate() {
            match output {
                Output::Connect { candidate, .. } => {
                    prop_assert!(!asked.contains(candidate) && current.is_none() && committed.is_none());
                    asked.push(*candidate);
                    current = Some(*candidate);
                }
                Output::Abandon { candidate } => {
                    prop_assert_eq!(current.take(), Some(*candidate));
                }
                Output::Commit { candidate } => {
                    prop_assert_eq!(current, Some(*candidate));
                    prop_assert!(committed.is_none_or(|one| one == *candidate));
                    committed = Some(*candidate);
                }
                Output::Deliver { candidate } => {
                    prop_assert_eq!(current, Some(*candidate));
                    prop_assert!(resume || committed.is_some());
                }
                Output::Fail(_) => prop_assert_eq!(index, outputs.len() - 1),
                Output::Finish { candidate } => {
                    prop_assert_eq!(committed, Some(*candidate));
                    prop_assert_eq!(index, outputs.len() - 1);
                }
            }
        }
        let ended = matches!(outputs.last(), Some(Output::Fail(_) | Output::Finish { .. }));
        prop_assert!(ended);
        prop_assert!(asked.len() <= limits.attempts);
    }

    /// A machine finishes once at most, and only with a commit.
    #[test]
    fn a_machine_finishes_once_and_with_a_commit(
        held in any::<bool>(),
        events in prop::collection::vec((0..6, 0u64..2_000), 0..40),
    ) {
        let mut now = Instant::now();
        let when = if held { CommitWhen::Held } else { CommitWhen::FirstToken };
        let mut serving = Serving::new(when, now);
        let (mut finished, mut committed, mut over) = (0, false, false);
        for (event, pause) in events {
            now += Duration::from_millis(pause);
            let act = match event {
                0 | 1 => {
                    prop_assert_eq!(serving.token(now), !over);
                    None
                }
                2 => serving.end(now),
                3 => {
                    let answer = serving.commit(now);
                    committed |= answer.is_ok();
                    answer.unwrap_or(None)
                }
                4 => serving.tick(now),
                _ => if pause > 1_900 { serving.asker_gone() } else { None },
            };
            prop_assert!(!(over && act.is_some()));
            if act == Some(Act::Finish) {
                finished += 1;
                prop_assert!(committed);
            }
            over = serving.is_over();
        }
        prop_assert!(finished <= 1);
    }
}
