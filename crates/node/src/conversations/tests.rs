//! Chains, and what is left of them after deleting and pruning, with times that the test chooses.
#![allow(clippy::unwrap_used)]

use hearth_protocol::responses::{ContentPart, ItemStatus, Role};
use serde_json::json;

use super::*;

const DAY: u64 = 24 * 3600;

fn said(id: &str) -> Item {
    Item::Message {
        id: id.into(),
        status: ItemStatus::Completed,
        role: Role::User,
        content: vec![ContentPart::InputText { text: id.into() }],
    }
}

fn turn(id: &str, created: u64, previous: Option<&str>) -> Turn {
    Turn {
        id: id.into(),
        created,
        previous: previous.map(Into::into),
        conversation: None,
        body: json!({"id": id, "output": [1, 2, 3], "status": "completed"}),
        asked: vec![said(&format!("{id}-asked"))],
        answered: vec![said(&format!("{id}-answered"))],
    }
}

fn kept() -> Conversations {
    Conversations::new(Store::in_memory(&[TABLES]).unwrap())
}

fn now<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

fn ids(items: &[Item]) -> Vec<&str> {
    items.iter().map(Item::id).collect()
}

#[test]
fn a_chain_is_everything_said_in_order() {
    now(async {
        let kept = kept();
        kept.keep(turn("a", 1, None)).await.unwrap();
        kept.keep(turn("b", 2, Some("a"))).await.unwrap();
        kept.keep(turn("c", 3, Some("b"))).await.unwrap();
        // Another one that goes on from the first.
        kept.keep(turn("d", 4, Some("a"))).await.unwrap();
        let chain = kept.up_to("c".into()).await.unwrap();
        let order = [
            "a-asked",
            "a-answered",
            "b-asked",
            "b-answered",
            "c-asked",
            "c-answered",
        ];
        assert_eq!(ids(&chain), order);
        let chain = kept.up_to("d".into()).await.unwrap();
        assert_eq!(
            ids(&chain),
            ["a-asked", "a-answered", "d-asked", "d-answered"]
        );
        let body = kept.response("b".into()).await.unwrap();
        assert_eq!(body["output"][0]["id"], "b-answered");
        assert_eq!(body["output"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn what_goes_on_from_a_deleted_answer_says_so() {
    now(async {
        let kept = kept();
        kept.keep(turn("a", 1, None)).await.unwrap();
        kept.keep(turn("b", 2, Some("a"))).await.unwrap();
        kept.delete_response("a".into()).await.unwrap();
        assert!(kept.response("b".into()).await.is_ok());
        let error = kept.up_to("b".into()).await.unwrap_err();
        assert!(
            matches!(&error, KeepError::Broken { id, missing } if id == "b" && missing == "a"),
            "{error:?}"
        );
        let error = kept.delete_response("a".into()).await.unwrap_err();
        assert!(matches!(error, KeepError::Unknown(id) if id == "a"));
    });
}

#[test]
fn answers_are_kept_thirty_days_after_the_last_that_goes_on_from_them() {
    now(async {
        let kept = kept();
        kept.keep(turn("old", DAY, None)).await.unwrap();
        kept.keep(turn("root", DAY, None)).await.unwrap();
        kept.keep(turn("branch", 2 * DAY, Some("root")))
            .await
            .unwrap();
        kept.keep(turn("new", 20 * DAY, Some("root")))
            .await
            .unwrap();
        assert_eq!(
            kept.prune(31 * DAY).await.unwrap(),
            0,
            "nothing is older than 30 days"
        );
        assert_eq!(kept.prune(33 * DAY).await.unwrap(), 2);
        assert!(kept.response("old".into()).await.is_err());
        assert!(kept.response("branch".into()).await.is_err());
        assert_eq!(kept.up_to("new".into()).await.unwrap().len(), 4);
        assert!(
            kept.find("old-asked".into()).await.is_err(),
            "its items went with it"
        );
        assert_eq!(kept.prune(60 * DAY).await.unwrap(), 2);
        // A clock that goes backwards deletes nothing.
        kept.keep(turn("late", 60 * DAY, None)).await.unwrap();
        assert_eq!(kept.prune(DAY).await.unwrap(), 0);
    });
}

#[test]
fn an_answer_in_a_conversation_knows_what_came_before_it() {
    now(async {
        let kept = kept();
        let named = Named {
            created: 5,
            metadata: Metadata::new(),
        };
        kept.create("conv".into(), named, vec![said("first")])
            .await
            .unwrap();
        let given = |id, created| Turn {
            conversation: Some("conv".into()),
            ..turn(id, created, None)
        };
        kept.keep(given("a", 6)).await.unwrap();
        kept.keep(given("b", 7)).await.unwrap();
        let all = kept.all_of("conv".into()).await.unwrap();
        let order = ["first", "a-asked", "a-answered", "b-asked", "b-answered"];
        assert_eq!(ids(&all), order);
        assert_eq!(ids(&kept.up_to("a".into()).await.unwrap()), order[..3]);
        let again = kept
            .append("conv".into(), vec![said("last"), said("first")])
            .await;
        assert!(matches!(again, Err(KeepError::Taken(id)) if id == "first"));
        assert_eq!(kept.all_of("conv".into()).await.unwrap().len(), 5);

        kept.delete("conv".into()).await.unwrap();
        assert!(matches!(
            kept.up_to("a".into()).await,
            Err(KeepError::Broken { .. })
        ));
        let lost = kept.keep(given("c", 8)).await.unwrap_err();
        assert!(matches!(lost, KeepError::Unknown(id) if id == "conv"));
        assert!(
            kept.response("c".into()).await.is_err(),
            "nothing is kept by half"
        );
    });
}

#[test]
fn pages_go_both_ways() {
    now(async {
        let kept = kept();
        let asked: Vec<Item> = (0..5).map(|at| said(&format!("i{at}"))).collect();
        let all = Turn {
            asked,
            ..turn("a", 1, None)
        };
        kept.keep(all).await.unwrap();
        let pages = async |descending, limit, after: Option<&str>| {
            let listing = Listing {
                after: after.map(Into::into),
                limit,
                descending,
            };
            let page = kept.page(Owner::Response("a".into()), listing).await?;
            let ids: Vec<String> = page
                .items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned())
                .collect();
            Ok::<_, KeepError>((ids.join(" "), page.more))
        };
        assert_eq!(pages(false, 2, None).await.unwrap(), ("i0 i1".into(), true));
        assert_eq!(
            pages(false, 3, Some("i1")).await.unwrap(),
            ("i2 i3 i4".into(), false)
        );
        assert_eq!(pages(true, 2, None).await.unwrap(), ("i4 i3".into(), true));
        assert_eq!(
            pages(true, 9, Some("i3")).await.unwrap(),
            ("i2 i1 i0".into(), false)
        );
        assert!(
            matches!(pages(true, 9, Some("x")).await, Err(KeepError::Unknown(id)) if id == "x")
        );
    });
}
