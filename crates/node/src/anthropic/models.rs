//! The models in Anthropic's shape (<https://docs.anthropic.com/en/api/models-list>). The routes are OpenAI's too
//! (`openai/models.rs`); a header that Anthropic's clients always send tells whose client asks.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use hearth_protocol::anthropic::{ModelInfo, ModelPage};
use hearth_protocol::error::ApiError;
use hearth_protocol::model::Model;
use jiff::Timestamp;

/// Models of a page unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 20;
/// Most models of a page.
const MOST: usize = 1000;

/// What stands behind the `?` of a request.
pub(crate) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// A model as Anthropic's clients know it.
pub(crate) fn info(model: Model) -> ModelInfo {
    let created = i64::try_from(model.created).ok();
    let created = created.and_then(|seconds| Timestamp::from_second(seconds).ok());
    ModelInfo {
        kind: "model".into(),
        display_name: model.id.clone(),
        id: model.id,
        created_at: created.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
    }
}

/// The page of these models that is asked for.
pub(crate) fn page(models: Vec<Model>, query: Pairs) -> Result<ModelPage, ApiError> {
    let invalid = |error: QueryRejection| ApiError::invalid(None, error.body_text());
    let (mut limit, mut after, mut before) = (DEFAULT_LIMIT, None, None);
    let place = |name: &str, id: &str| {
        let at = models.iter().position(|model| model.id == id);
        at.ok_or_else(|| {
            let message = format!("{name}: there is no model `{id}`; give an id of this list");
            ApiError::invalid(Some(name.into()), message)
        })
    };
    for (name, value) in query.map_err(invalid)?.0 {
        match name.as_str() {
            "limit" => {
                let number = value.parse().ok();
                let number = number.filter(|number| (1..=MOST).contains(number));
                limit = number.ok_or_else(|| {
                    let message = format!("limit must be a number from 1 to {MOST}");
                    ApiError::invalid(Some("limit".into()), message)
                })?;
            }
            "after_id" => after = Some(place(&name, &value)?),
            "before_id" => before = Some(place(&name, &value)?),
            _ => {}
        }
    }
    if after.is_some() && before.is_some() {
        let message = "give either before_id or after_id, not both";
        return Err(ApiError::invalid(Some("before_id".into()), message));
    }
    // Backwards the page ends where `before_id` stands.
    let (first, end, has_more) = match before {
        Some(end) => (end.saturating_sub(limit), end, end > limit),
        None => {
            let first = after.map_or(0, |at| at + 1);
            let end = models.len().min(first + limit);
            (first, end, end < models.len())
        }
    };
    let models = models.into_iter().skip(first).take(end - first);
    let data: Vec<ModelInfo> = models.map(info).collect();
    Ok(ModelPage {
        has_more,
        first_id: data.first().map(|model| model.id.clone()),
        last_id: data.last().map(|model| model.id.clone()),
        data,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ids(query: &[(&str, &str)]) -> Result<(Vec<String>, bool), String> {
        let models = ["a", "b", "c", "d", "e"].map(|id| Model {
            id: id.into(),
            object: "model".into(),
            created: 1_700_000_000,
            owned_by: "hearth".into(),
        });
        let query = query
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let page = page(models.into(), Ok(Query(query.collect())));
        let page = page.map_err(|error| error.param.unwrap())?;
        assert_eq!(
            page.first_id.as_ref(),
            page.data.first().map(|model| &model.id)
        );
        assert_eq!(
            page.last_id.as_ref(),
            page.data.last().map(|model| &model.id)
        );
        let ids = page.data.into_iter().map(|model| model.id);
        Ok((ids.collect(), page.has_more))
    }

    #[test]
    fn pages_go_both_ways_and_say_whether_there_is_more() {
        for (query, expected, more) in [
            (&[][..], "abcde", false),
            (&[("limit", "2")], "ab", true),
            (&[("limit", "2"), ("after_id", "b")], "cd", true),
            (&[("limit", "2"), ("after_id", "d")], "e", false),
            (&[("after_id", "e")], "", false),
            (&[("limit", "2"), ("before_id", "e")], "cd", true),
            (&[("limit", "2"), ("before_id", "c")], "ab", false),
            (&[("before_id", "a")], "", false),
        ] {
            let (ids, has_more) = ids(query).unwrap();
            assert_eq!(
                (ids.concat().as_str(), has_more),
                (expected, more),
                "{query:?}"
            );
        }
        for (query, param) in [
            (&[("limit", "0")][..], "limit"),
            (&[("limit", "1001")], "limit"),
            (&[("limit", "many")], "limit"),
            (&[("after_id", "x")], "after_id"),
            (&[("before_id", "x")], "before_id"),
            (&[("after_id", "a"), ("before_id", "c")], "before_id"),
        ] {
            assert_eq!(ids(query).unwrap_err(), param, "{query:?}");
        }
    }
}
