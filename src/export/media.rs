//! The path or URL of the media of each video.

use super::{ExportError, ExportFormat, Exported};
use crate::events::elan::percent_encoded;
use crate::ingest::annotations::key11;

/// A path or URL with places for the name of a video.
pub(super) struct MediaTemplate {
    text: String,
    /// Whether the text is a URL, in which characters such as a space, `#` and `?` have another meaning.
    is_url: bool,
    /// Whether the format names the media.
    is_used: bool,
}

impl MediaTemplate {
    pub(super) fn new(text: &str, format: ExportFormat) -> MediaTemplate {
        MediaTemplate {
            text: text.to_owned(),
            // Label Studio takes URLs only: also a path such as `/data/local-files/?d=videos/{video}.mp4` is one.
            is_url: format == ExportFormat::LabelStudio || text.contains("://"),
            is_used: matches!(
                format,
                ExportFormat::LabelStudio | ExportFormat::FiftyOne | ExportFormat::Elan
            ),
        }
    }

    /// Refuses a text that gives several videos the same media.
    pub(super) fn check(&self, exported: &Exported) -> Result<(), ExportError> {
        let videos = exported.videos.len();
        if !self.is_used || videos < 2 || self.text.contains("{video}") || self.text.contains("{id}") {
            return Ok(());
        }
        Err(ExportError::Media {
            found: self.text.clone(),
            videos,
            unknown: self
                .unknown()
                .map_or_else(String::new, |place| format!(", and `{place}` is unknown")),
        })
    }

    /// The first place in braces.
    fn unknown(&self) -> Option<&str> {
        let start = self.text.find('{')?;
        let end = start + self.text[start..].find('}')?;
        Some(&self.text[start..=end])
    }

    /// The media of a video.
    pub(super) fn of(&self, video: &str) -> String {
        // One pass, so that a name that contains `{id}` stays as it is.
        let mut media = String::new();
        let mut rest = self.text.as_str();
        while let Some(at) = rest.find('{') {
            media.push_str(&rest[..at]);
            rest = &rest[at..];
            let places = [("{video}", video), ("{id}", key11(video))];
            match places.into_iter().find(|(place, _)| rest.starts_with(place)) {
                Some((place, value)) => {
                    match self.is_url {
                        true => media.push_str(&percent_encoded(value)),
                        false => media.push_str(value),
                    }
                    rest = &rest[place.len()..];
                }
                None => {
                    media.push('{');
                    rest = &rest[1..];
                }
            }
        }
        media + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_encoded_in_a_url_and_stays_in_a_path() {
        let of = |text: &str, format| MediaTemplate::new(text, format).of("a b#?{id}%_0_10");
        let encoded = "a%20b%23%3F%7Bid%7D%25_0_10";
        assert_eq!(
            of("https://host/{video}.mp4", ExportFormat::Elan),
            format!("https://host/{encoded}.mp4")
        );
        assert_eq!(
            of("/data/local-files/?d={video}.mp4", ExportFormat::LabelStudio),
            format!("/data/local-files/?d={encoded}.mp4")
        );
        assert_eq!(
            of("/videos/{video}.mp4", ExportFormat::FiftyOne),
            "/videos/a b#?{id}%_0_10.mp4"
        );
        assert_eq!(of("{x}{id}", ExportFormat::FiftyOne), "{x}a b#?{id}%_");
    }
}
