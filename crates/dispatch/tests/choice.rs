//! Which machine is chosen in situations of every day, and why.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use hearth_dispatch::{
    Affinity, Candidate, Demand, Excluded, ModelState, Path, Why, affinity, excluded, rank,
};
use hearth_protocol::diagnosis::Health;
use hearth_protocol::household::NodeId;
use proptest::prelude::*;

const GB: u64 = 1_000_000_000;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// A laptop: this machine, with a model of 5 GB loaded.
fn laptop() -> Candidate {
    Candidate {
        node: node(1),
        path: Path::Here,
        round_trip: None,
        model: ModelState::Loaded,
        size_bytes: 5 * GB,
        context: 8192,
        gpu: false,
        slots: 4,
        busy: 0,
        queued: 0,
        decode_tokens_per_second: 8.0,
        prefill_tokens_per_second: 60.0,
        cached_tokens: 0,
        on_battery: false,
        throttled: false,
        health: Health::Good,
    }
}

/// A desktop with a GPU in the same network, with the same model loaded.
fn desktop() -> Candidate {
    Candidate {
        node: node(2),
        path: Path::Direct,
        round_trip: Some(Duration::from_millis(2)),
        gpu: true,
        decode_tokens_per_second: 40.0,
        prefill_tokens_per_second: 900.0,
        ..laptop()
    }
}

fn demand() -> Demand {
    Demand {
        prompt_tokens: 500,
        ..Demand::default()
    }
}

#[test]
fn situations_of_every_day() {
    let small = |candidate: Candidate| Candidate {
        size_bytes: GB / 50,
        decode_tokens_per_second: 900.0,
        prefill_tokens_per_second: 20_000.0,
        ..candidate
    };
    let short = Demand {
        prompt_tokens: 200,
        max_tokens: Some(20),
        ..demand()
    };
    let unloaded = ModelState::Loadable(Some(Duration::from_secs(90)));
    let cases: Vec<(&str, Demand, Candidate, Candidate, u8, Why)> = vec![
        (
            "the GPU wins with a model of size",
            demand(),
            laptop(),
            desktop(),
            2,
            Why::Faster,
        ),
        (
            "all the more when the laptop is on its battery",
            demand(),
            Candidate {
                on_battery: true,
                ..laptop()
            },
            desktop(),
            2,
            Why::Faster,
        ),
        (
            "a small model answers here: nobody is clearly quicker",
            short,
            small(laptop()),
            small(desktop()),
            1,
            Why::HereOnTie,
        ),
        (
            "a small model answers here: a relay is slow",
            short,
            small(laptop()),
            Candidate {
                path: Path::Relayed,
                round_trip: Some(Duration::from_millis(180)),
                ..small(desktop())
            },
            1,
            Why::Nearer,
        ),
        (
            "loading for a minute and a half is slower than a slow machine",
            demand(),
            laptop(),
            Candidate {
                model: unloaded,
                ..desktop()
            },
            1,
            Why::Loaded,
        ),
        (
            "and quicker than a machine that would take ten",
            Demand {
                prompt_tokens: 8_000,
                ..demand()
            },
            Candidate {
                decode_tokens_per_second: 0.5,
                prefill_tokens_per_second: 10.0,
                ..laptop()
            },
            Candidate {
                model: unloaded,
                ..desktop()
            },
            2,
            Why::Faster,
        ),
        (
            "a queue at the GPU sends short work here",
            short,
            laptop(),
            Candidate {
                busy: 4,
                queued: 3,
                ..desktop()
            },
            1,
            Why::Free,
        ),
        (
            "a relayed GPU is still the quicker one for a long answer",
            demand(),
            laptop(),
            Candidate {
                path: Path::Relayed,
                round_trip: None,
                ..desktop()
            },
            2,
            Why::Faster,
        ),
        (
            "a long conversation stays where it is cached",
            Demand {
                prompt_tokens: 8_000,
                max_tokens: Some(40),
                ..demand()
            },
            Candidate {
                cached_tokens: 7_900,
                ..laptop()
            },
            desktop(),
            1,
            Why::Cached,
        ),
        (
            "a hot desktop is slower than it was measured, and not that slow",
            demand(),
            laptop(),
            Candidate {
                throttled: true,
                ..desktop()
            },
            2,
            Why::Faster,
        ),
        (
            "`peer/model` decides",
            Demand {
                pinned: Some(node(2)),
                ..short
            },
            small(laptop()),
            small(desktop()),
            2,
            Why::Pinned,
        ),
        (
            "what may not leave this machine does not",
            Demand {
                local_only: true,
                ..demand()
            },
            laptop(),
            desktop(),
            1,
            Why::MustStay,
        ),
        (
            "a machine that does not have the model is no choice",
            demand(),
            Candidate {
                model: ModelState::Missing,
                ..laptop()
            },
            desktop(),
            2,
            Why::Only,
        ),
        (
            "a prompt that is too long for the one goes to the other",
            Demand {
                prompt_tokens: 20_000,
                ..demand()
            },
            laptop(),
            Candidate {
                context: 32_768,
                ..desktop()
            },
            2,
            Why::Only,
        ),
        (
            "a last resort comes last, however fast it is",
            demand(),
            laptop(),
            Candidate {
                health: Health::LastResort,
                ..desktop()
            },
            1,
            Why::Health,
        ),
        (
            "a bad peer is left out",
            demand(),
            laptop(),
            Candidate {
                health: Health::Bad,
                ..desktop()
            },
            1,
            Why::Only,
        ),
        (
            "without any measurement the GPU is believed to be faster",
            demand(),
            Candidate {
                decode_tokens_per_second: 0.0,
                prefill_tokens_per_second: 0.0,
                ..laptop()
            },
            Candidate {
                decode_tokens_per_second: 0.0,
                prefill_tokens_per_second: 0.0,
                ..desktop()
            },
            2,
            Why::Faster,
        ),
        (
            "a peer nobody heard of yet is not asked for a trifle",
            short,
            small(laptop()),
            Candidate {
                health: Health::Unknown,
                ..small(desktop())
            },
            1,
            Why::Health,
        ),
        (
            "a machine that loads the model already is nearly there",
            demand(),
            Candidate {
                model: unloaded,
                ..laptop()
            },
            Candidate {
                model: ModelState::Loading(Some(Duration::from_secs(4))),
                ..desktop()
            },
            2,
            Why::Loaded,
        ),
    ];
    for (what, demand, here, there, chosen, why) in cases {
        let candidates = [here, there];
        let choices = rank(&demand, &candidates);
        let first = choices.first().unwrap_or_else(|| panic!("{what}: nobody"));
        assert_eq!(
            candidates[first.index].node,
            node(chosen),
            "{what}: {choices:?}"
        );
        assert_eq!(first.why, why, "{what}: {choices:?}");
    }
}

/// Generation speeds of three machines with four models, as somebody measured them (article 45): which one is fastest
/// depends on the model.
#[test]
fn the_right_machine_depends_on_the_model() {
    // Mac (here), RTX 2080 Ti, RX 6600 XT.
    let models = [
        (
            "Phi-3 mini 3.8B",
            22 * GB / 10,
            [19.1, 59.9, 16.4],
            [2, 1, 3],
        ),
        ("Qwen 2.5 7B", 47 * GB / 10, [12.4, 43.0, 20.4], [2, 3, 1]),
        ("Llama 3.1 8B", 49 * GB / 10, [11.6, 40.1, 20.9], [2, 3, 1]),
        ("Llama 3.1 70B", 31 * GB, [0.0, 1.3, 0.0], [2, 0, 0]),
    ];
    for (name, size_bytes, speeds, order) in models {
        let candidates: Vec<Candidate> = speeds
            .iter()
            .zip(1..)
            .map(|(speed, number)| Candidate {
                node: node(number),
                path: if number == 1 {
                    Path::Here
                } else {
                    Path::Direct
                },
                round_trip: Some(Duration::from_millis(3)),
                model: if *speed > 0.0 {
                    ModelState::Loaded
                } else {
                    ModelState::Missing
                },
                size_bytes,
                gpu: true,
                decode_tokens_per_second: *speed,
                prefill_tokens_per_second: *speed * 20.0,
                ..laptop()
            })
            .collect();
        let ranked: Vec<NodeId> = rank(&demand(), &candidates)
            .iter()
            .map(|choice| candidates[choice.index].node)
            .collect();
        let order: Vec<NodeId> = order
            .into_iter()
            .filter(|number| *number > 0)
            .map(node)
            .collect();
        assert_eq!(ranked, order, "{name}");
    }
}

#[test]
fn a_candidate_that_is_out_says_why() {
    let pinned = Demand {
        pinned: Some(node(9)),
        ..demand()
    };
    assert_eq!(
        excluded(&pinned, &desktop()),
        Some(Excluded::PinnedElsewhere)
    );
    let pinned = Demand {
        pinned: Some(node(2)),
        local_only: true,
        ..demand()
    };
    assert_eq!(excluded(&pinned, &desktop()), Some(Excluded::MustStay));
    let bad = Candidate {
        health: Health::Bad,
        ..desktop()
    };
    assert_eq!(excluded(&demand(), &bad), Some(Excluded::Unhealthy));
    let pinned = Demand {
        pinned: Some(node(2)),
        ..demand()
    };
    assert_eq!(
        excluded(&pinned, &bad),
        None,
        "the attempt says best what is wrong"
    );
}

#[test]
fn times_are_what_they_are_made_of() {
    let alone = rank(&demand(), &[desktop()])[0];
    // 2 ms there and back, 500 tokens at 900/s, 256 at 40/s.
    assert_eq!(alone.first_token.as_millis(), 557);
    assert_eq!(alone.end.as_millis(), 6957);
    let slow = Candidate {
        decode_tokens_per_second: f32::MIN_POSITIVE,
        prefill_tokens_per_second: f32::NAN,
        ..desktop()
    };
    assert!(rank(&demand(), &[slow])[0].end < Duration::from_secs(400 * 86_400));
}

#[test]
fn a_conversation_goes_back_to_where_it_was() {
    let mut affinity = Affinity::new(1_000);
    let system = "You are a careful assistant. ".repeat(40);
    let first = format!("{system}What is a mesh? {}", "It is … ".repeat(100));
    affinity.note("m", &first, node(2));
    affinity.note("m", &system, node(3));
    let next = format!("{first}And a hub?");
    let found = affinity.find("m", &next);
    let held = |number| {
        let of = found.iter().find(|(holder, _)| *holder == node(number));
        of.map_or(0, |(_, bytes)| *bytes)
    };
    assert!(held(2) > first.len() - affinity::PIECE && held(2) <= first.len());
    assert!(held(3) > system.len() - affinity::PIECE && held(3) <= system.len());
    assert_eq!(
        affinity.find("another", &next),
        [],
        "each model has its own cache"
    );
    affinity.forget(node(2));
    let left = affinity.find("m", &next);
    assert_eq!(left, [(node(3), held(3))]);
}

prop_compose! {
    fn candidate()(
        number in 2u8..200,
        here in any::<bool>(),
        relayed in any::<bool>(),
        round_trip in prop::option::of(0u64..3_000),
        model in 0..4,
        (size_bytes, slots, busy, queued) in (0..100 * GB, 0u32..16, 0u32..32, 0u32..50),
        (decode, prefill) in (0f32..200.0, 0f32..5_000.0),
        cached_tokens in 0u32..20_000,
        (on_battery, throttled, gpu) in any::<(bool, bool, bool)>(),
        health in 0..4,
    ) -> Candidate {
        Candidate {
            node: node(if here { 1 } else { number }),
            path: match (here, relayed) {
                (true, _) => Path::Here,
                (_, true) => Path::Relayed,
                _ => Path::Direct,
            },
            round_trip: round_trip.map(Duration::from_millis),
            model: match model {
                0 => ModelState::Loaded,
                1 => ModelState::Loading(None),
                2 => ModelState::Loadable(None),
                _ => ModelState::Missing,
            },
            size_bytes, slots, busy, queued,
            context: 0,
            gpu,
            decode_tokens_per_second: decode,
            prefill_tokens_per_second: prefill,
            cached_tokens, on_battery, throttled,
            health: match health {
                0 => Health::Good,
                1 => Health::Unknown,
                2 => Health::LastResort,
                _ => Health::Bad,
            },
        }
    }
}

proptest! {
    /// Everybody who can answer is ranked once, nobody else is; nothing comes before its first token ends; last resorts
    /// are last; and whoever stands before this machine is clearly quicker.
    #[test]
    fn the_ranking_is_whole_and_in_order(
        candidates in prop::collection::vec(candidate(), 0..12),
        prompt_tokens in 0u32..20_000,
        max_tokens in prop::option::of(1u32..4_000),
    ) {
        let demand = Demand { prompt_tokens, max_tokens, ..Demand::default() };
        let choices = rank(&demand, &candidates);
        let mut ranked: Vec<usize> = choices.iter().map(|choice| choice.index).collect();
        let resorts = ranked.iter().map(|index| candidates[*index].health == Health::LastResort);
        prop_assert!(resorts.is_sorted());
        let cost = |place: usize| {
            let choice = &choices[place];
            (choice.first_token + choice.end).as_secs_f64() / 2.0
        };
        for place in 0..choices.len() {
            prop_assert!(choices[place].first_token <= choices[place].end);
            let here = |place: usize| candidates[choices[place].index].path == Path::Here;
            let resort = |place: usize| candidates[choices[place].index].health == Health::LastResort;
            for before in 0..place {
                if here(place) && !here(before) && resort(place) == resort(before)
                    && !(0..before).any(here) {
                    prop_assert!(cost(before) <= cost(place) + 1e-6);
                }
            }
        }
        ranked.sort_unstable();
        let able: Vec<usize> = (0..candidates.len())
            .filter(|index| excluded(&demand, &candidates[*index]).is_none()).collect();
        prop_assert_eq!(ranked, able);
    }

    /// A machine that is better in every respect is never ranked after a worse one of its kind.
    #[test]
    fn better_is_not_worse(candidate in candidate(), prompt_tokens in 0u32..20_000) {
        prop_assume!(candidate.path != Path::Here && candidate.decode_tokens_per_second > 1.0
            && candidate.prefill_tokens_per_second > 1.0);
        let better = Candidate {
            model: ModelState::Loaded,
            decode_tokens_per_second: candidate.decode_tokens_per_second * 2.0,
            prefill_tokens_per_second: candidate.prefill_tokens_per_second * 2.0,
            busy: 0, queued: 0, on_battery: false, throttled: false,
            health: Health::Good,
            ..candidate.clone()
        };
        let choices = rank(&Demand { prompt_tokens, ..Demand::default() }, &[candidate, better]);
        prop_assert_eq!(choices[0].index, 1);
    }

    /// What is remembered is bounded, and what is found was noted.
    #[test]
    fn affinity_is_bounded(
        prompts in prop::collection::vec(("[ab]{0,3}", 0usize..3_000, 1u8..6), 0..40),
        capacity in 0usize..50,
    ) {
        let mut affinity = Affinity::new(capacity);
        for (head, length, holder) in &prompts {
            let prompt = format!("{head}{}", "x".repeat(*length));
            affinity.note("m", &prompt, node(*holder));
            let found = affinity.find("m", &prompt);
            prop_assert!(found.len() <= 5);
            for (_, bytes) in found {
                prop_assert!(bytes <= prompt.len() && bytes <= capacity * affinity::PIECE);
            }
        }
    }
}
