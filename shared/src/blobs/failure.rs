//! What an object store's error says, once: its own text repeats that of everything below it, requests and documents
//! included.

use std::error::Error;
use std::fmt;

/// Why a store did not do what it was asked: which request, and what became of it.
#[derive(Debug)]
pub struct StoreFailure(object_store::Error);

impl From<object_store::Error> for StoreFailure {
    fn from(error: object_store::Error) -> Self {
        Self(error)
    }
}

impl Error for StoreFailure {}

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts = vec![self.0.to_string()];
        let mut source = self.0.source();
        while let Some(cause) = source {
            texts.push(cause.to_string());
            source = cause.source();
        }
        f.write_str(&said_once(&texts))
    }
}

/// Out of the texts of a chain of errors, the outermost first.
fn said_once(texts: &[String]) -> String {
    let request = texts.iter().find_map(|text| requested(text));
    let answer = texts.iter().rev().find_map(|text| answered(text));
    let told = match answer {
        Some(answer) => answer,
        None => {
            // A text that holds the next one says nothing more.
            let repeats =
                |place: usize| texts.get(place + 1).is_some_and(|next| texts[place].contains(next.as_str()));
            let own =
                texts.iter().enumerate().filter(|(place, _)| !repeats(*place)).map(|(_, text)| text.as_str());
            own.collect::<Vec<_>>().join(": ")
        }
    };
    match request {
        Some(request) if !told.contains(&request) => format!("{request}: {told}"),
        Some(_) | None => told,
    }
}

/// `PUT http://…`, where a text names a request.
fn requested(text: &str) -> Option<String> {
    let mut words = text.split("Error performing ").nth(1)?.split_whitespace();
    let (method, url) = (words.next()?, words.next()?);
    url.starts_with("http").then(|| format!("{method} {url}"))
}

/// The code and the words of a server's document, or the status alone.
fn answered(text: &str) -> Option<String> {
    let between = |name: &str| {
        let rest = text.split(&format!("<{name}>")).nth(1)?;
        rest.split("</").next().filter(|found| !found.is_empty()).map(str::to_owned)
    };
    match (between("Code"), between("Message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (Some(code), None) => Some(code),
        (None, _) => {
            let status = text.split("status code: ").nth(1)?;
            Some(format!("answered {}", status.trim_end_matches([':', ' '])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str], said: &str) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(said_once(&texts), said);
    }

    #[test]
    fn what_a_store_says_is_said_once() {
        let document = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>There is none</Message></Error>";
        let status = format!("Server returned non-2xx status code: 404 Not Found: {document}");
        let put = format!("Error performing PUT http://objects/nobucket/53 in 5.4ms - {status}");
        let whole = format!("Object at location 53 not found: {put}");
        check(&[&whole, &put, &status], "PUT http://objects/nobucket/53: NoSuchBucket: There is none");
        let forbidden = "Server returned non-2xx status code: 403 Forbidden: ";
        let head = format!("Error performing HEAD http://objects/a in 1ms - {forbidden}");
        check(
            &[&format!("Permission denied: {head}"), &head, forbidden],
            "HEAD http://objects/a: answered 403 Forbidden",
        );
        let sending = "error sending request";
        let head =
            format!("Error performing HEAD http://objects/a in 4s, after 10 retries - HTTP error: {sending}");
        check(
            &[
                &format!("Generic S3 error: {head}"),
                &head,
                "HTTP error: error sending request",
                sending,
                "tcp connect error",
            ],
            "HEAD http://objects/a: error sending request: tcp connect error",
        );
        check(
            &["Generic MicrosoftAzure error: Account must be specified", "Account must be specified"],
            "Account must be specified",
        );
    }
}
