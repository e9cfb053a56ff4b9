//! Users: list, create, read, update, delete.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};

use super::{Answer, Body, State, changed, page_of, shared};
use crate::error::AppError;
use crate::input::Page;
use crate::model::{User, UserInput};
use crate::writes;

pub(super) async fn list(state: State, query: web::Query<BTreeMap<String, String>>) -> Answer {
    let page = Page::read(query.into_inner(), false)?;
    // Which rows are on a page changes with every new row, and is asked for; the rows themselves are cached.
    let ids = state.rows.user_ids(&page).await?;
    Ok(page_of(state.read_many::<User>(&ids).await?, &ids, page.limit))
}

pub(super) async fn read(state: State, id: web::Path<i64>) -> Answer {
    let user = state.read::<User>(*id).await?.value;
    Ok(HttpResponse::Ok().json(user.ok_or_else(|| AppError::not_found(format_args!("user {id}")))?))
}

pub(super) async fn create(state: State, body: Body) -> Answer {
    let input = UserInput::try_from(body.into_inner())?;
    let (user, invalidated) = writes::create_user(shared(&state), input).await?;
    let mut answer = changed(HttpResponse::Created(), invalidated);
    answer.insert_header(("location", format!("/users/{}", user.id)));
    Ok(answer.json(user))
}

pub(super) async fn update(state: State, id: web::Path<i64>, body: Body) -> Answer {
    let input = UserInput::try_from(body.into_inner())?;
    let (user, invalidated) = writes::update_user(shared(&state), *id, input).await?;
    Ok(changed(HttpResponse::Ok(), invalidated).json(user))
}

pub(super) async fn delete(state: State, id: web::Path<i64>) -> Answer {
    let invalidated = writes::delete_user(shared(&state), *id).await?;
    Ok(changed(HttpResponse::NoContent(), invalidated).finish())
}
