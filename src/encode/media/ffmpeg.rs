//! Runs the ffmpeg program, and reads the pictures of a video from its output.
//!
//! ffmpeg gives frames at a constant rate, also if the video has another or a variable rate. It applies the rotation of
//! the video and keeps the size of the pictures. A video therefore gives the same segments as a folder of frames that
//! ffmpeg extracted from the video.

use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use super::cut::{Cut, Pick};
use crate::encode::MediaError;
use crate::encode::image::Rgb;
use crate::encode::image::decode::ppm;
use crate::encode::sound::container::{Container, container};
use crate::ingest::open_regular;

/// The function that receives each segment and its picture.
type OnPicture<'a> = &'a mut dyn FnMut(usize, Rgb);

/// Passes the picture of each segment to `sink`, in order. Returns the number of segments.
///
/// The function does not collect the frames: it keeps only the current and the last one.
///
/// # Errors
/// Returns [`MediaError::Ffmpeg`] if the program cannot be started. Returns [`MediaError::Video`], with the message of
/// ffmpeg, if ffmpeg gives no frame or a damaged one.
pub fn pictures(program: &Path, video: &Path, cut: &Cut, sink: OnPicture<'_>) -> Result<usize, MediaError> {
    // `Linspace` needs the total number of frames first, so a first run of ffmpeg counts them, at a small size.
    let wanted = match cut.pick {
        Pick::Centre => None,
        Pick::Linspace => {
            let frames =
                Stream::open(program, video, cut, ",scale=16:16")?.each(|_, _| ControlFlow::Continue(()))?;
            Some(cut.frames(frames.max(1)))
        }
    };
    let mut next = 0;
    let mut last = None;
    let mut frames = Stream::open(program, video, cut, "")?.each(|at, frame| {
        loop {
            let due = match &wanted {
                Some(wanted) => wanted.get(next).is_some_and(|&wanted| wanted == at),
                None => cut.count.is_none_or(|count| next < count) && cut.centre(next) == at,
            };
            if !due {
                break;
            }
            sink(next, frame.clone());
            next += 1;
        }
        last = Some(frame);
        // All segments have their picture, so the rest of a long video need not be decoded.
        match cut.pick {
            Pick::Centre if cut.count == Some(next) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })?;
    if frames == 0 {
        // A video that is shorter than half a frame at the wanted rate has no frame at that rate. Its first picture stands
        // for the frame.
        frames = Stream::start(program, video, &["-frames:v", "1"])?.each(|_, frame| {
            last = Some(frame);
            ControlFlow::Continue(())
        })?;
        if frames == 0 {
            return Err(MediaError::Video {
                path: video.to_owned(),
                problem: "has no frame that ffmpeg can read".to_owned(),
            });
        }
    }
    let segments = cut.segments_of_frames(frames);
    if let Some(last) = last {
        // If exactly half of the last segment exists, its middle is after the last frame: use the last frame.
        // A fixed number of segments can also be larger than the video.
        for segment in next..segments {
            sink(segment, last.clone());
        }
    }
    // The loop above passed no segment beyond `segments`: if the middle frame of a segment exists, half of the segment
    // exists, and `segments_of_frames` counts that segment.
    Ok(segments)
}

/// A running ffmpeg process whose output is read. Dropping the value kills the process.
pub(crate) struct Running {
    child: Child,
    /// The standard output of the process.
    pub(crate) out: BufReader<ChildStdout>,
    said: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts ffmpeg on a file; `arguments` come after the name of the file.
    ///
    /// # Errors
    /// Returns the error of the system if the program cannot be started.
    pub(crate) fn start(program: &Path, file: &Path, arguments: &[&str]) -> std::io::Result<Running> {
        // Without `file:`, ffmpeg would read a name that begins with `-` as a flag, and a name with `:` as a protocol.
        let mut input = OsString::from("file:");
        input.push(file);
        let mut child = Command::new(program)
            .args(["-nostdin", "-v", "error", "-threads", "1", "-i"])
            .arg(&input)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = BufReader::with_capacity(1 << 18, child.stdout.take().expect("its output is piped"));
        // A thread reads the messages of ffmpeg. Otherwise the pipe could fill up, and ffmpeg would wait forever.
        let mut errors = child.stderr.take().expect("its errors are piped");
        let said = std::thread::spawn(move || {
            let mut text = Vec::new();
            // If reading fails, only a part of an error message is lost.
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Running {
            child,
            out,
            said: Some(said),
        })
    }

    /// Waits for the end of the process; if `kill` is true, kills the process first. Returns its exit status, and the
    /// last line of its messages.
    ///
    /// # Errors
    /// Returns the error of the system if waiting fails.
    pub(crate) fn end(&mut self, kill: bool) -> std::io::Result<(ExitStatus, String)> {
        if kill {
            // An error means that the process has already ended.
            let _ = self.child.kill();
        }
        let status = self.child.wait()?;
        let said = self
            .said
            .take()
            .and_then(|said| said.join().ok())
            .unwrap_or_default();
        // After a missing stream, ffmpeg adds a hint about its own options.
        let hint = |line: &&str| line.starts_with("To ignore this");
        let said = said.lines().rev().find(|line| !hint(line));
        let said = said.unwrap_or("it said nothing").to_owned();
        Ok((status, said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.said.is_some() {
            // A destructor cannot return the error.
            let _ = self.end(true);
        }
    }
}

/// Returns arguments that make ffmpeg count times from the start of the whole file, and not from the start of one
/// stream. ffmpeg does this for most containers without arguments. For MPEG streams, it does this only if all streams
/// are used; the arguments therefore add an output that uses all streams and writes nothing.
pub(crate) fn whole_clock(file: &Path) -> &'static [&'static str] {
    let streams = open_regular(file).is_ok_and(|(mut file, _)| {
        let kind = container(&mut file);
        kind.is_ok_and(
            |container| matches!(container, Container::Other(name) if name.starts_with("an MPEG ")),
        )
    });
    if streams {
        &["-map", "0:v?", "-map", "0:a?", "-c", "copy", "-f", "null", "-"]
    } else {
        &[]
    }
}

/// The frames of a video, as ffmpeg gives them.
struct Stream {
    video: PathBuf,
    running: Running,
}

impl Stream {
    fn open(program: &Path, video: &Path, cut: &Cut, filter: &str) -> Result<Stream, MediaError> {
        // With `start_time=0`, the first picture also fills the time before it, if the pictures begin later than the
        // sound.
        let rate = format!("fps=fps={}:start_time=0{filter}", cut.frame_rate);
        Stream::start(program, video, &["-vf", &rate])
    }

    /// Starts ffmpeg on the default pictures of a video, with these arguments for its output.
    fn start(program: &Path, video: &Path, output: &[&str]) -> Result<Stream, MediaError> {
        // Without `-map`, ffmpeg takes the default track of several, and not the picture of a cover.
        let mut arguments = vec!["-an", "-sn", "-dn"];
        arguments.extend(output);
        // `rgb24` gives 8 bits per sample, also if the video has another depth.
        arguments.extend(["-pix_fmt", "rgb24", "-f", "image2pipe", "-c:v", "ppm", "-"]);
        // This second output fails if the file has no pictures but a cover (`V` excludes covers). It copies one packet.
        arguments.extend(["-map", "0:V:0", "-c", "copy", "-frames:v", "1", "-f", "null", "-"]);
        arguments.extend(whole_clock(video));
        let running = Running::start(program, video, &arguments).map_err(|source| MediaError::Ffmpeg {
            path: video.to_owned(),
            program: program.to_owned(),
            source,
        })?;
        Ok(Stream {
            video: video.to_owned(),
            running,
        })
    }

    /// Passes every frame to `frame` until that function breaks. Returns the number of frames that were read.
    fn each(mut self, mut frame: impl FnMut(usize, Rgb) -> ControlFlow<()>) -> Result<usize, MediaError> {
        let video = self.video.clone();
        let failed = |problem: String| MediaError::Video {
            path: video.clone(),
            problem,
        };
        let mut frames = 0;
        let mut buffer = Vec::new();
        let read = loop {
            match self.picture(&mut buffer) {
                Ok(Some(picture)) => {
                    let flow = frame(frames, picture);
                    frames += 1;
                    if flow.is_break() {
                        break Ok(true);
                    }
                }
                Ok(None) => break Ok(false),
                Err(problem) => break Err(problem),
            }
        };
        // After a break or an error, ffmpeg could run for a long time, and its frames are not needed: kill it.
        let stop = !matches!(read, Ok(false));
        let (status, said) = self
            .running
            .end(stop)
            .map_err(|error| failed(format!("ffmpeg was lost: {error}")))?;
        let stopped = read.map_err(|problem| failed(format!("gave a frame that {problem}")))?;
        if frames == 0 && status.success() {
            return Ok(0);
        }
        // ffmpeg says the first if the file has neither pictures nor a cover, and the second if it has only a cover.
        if frames == 0
            && ["does not contain any stream", "matches no streams"]
                .iter()
                .any(|words| said.contains(words))
        {
            return Err(failed(
                "has no pictures: add them, or encode only the sound".to_owned(),
            ));
        }
        if frames == 0 {
            return Err(failed(format!(
                "has no frame that ffmpeg can read ({status}: {said})"
            )));
        }
        // If a video is cut off, ffmpeg fails, but the frames before that point are used.
        if !status.success() && !stopped {
            tracing::warn!(video = %video.display(), frames, "ffmpeg stopped early: {said}");
        }
        Ok(frames)
    }

    /// Reads one PPM picture of the stream. Returns `None` at the end of the stream.
    fn picture(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Rgb>, String> {
        buffer.clear();
        // The header ends after the fourth white space: `P6\nWIDTH HEIGHT\n255\n`.
        let mut spaces = 0;
        let mut byte = [0];
        while spaces < 4 {
            match self
                .running
                .out
                .read(&mut byte)
                .map_err(|error| error.to_string())?
            {
                0 if buffer.is_empty() => return Ok(None),
                0 => return Err("is cut".to_owned()),
                _ => buffer.push(byte[0]),
            }
            spaces += usize::from(byte[0].is_ascii_whitespace());
            if buffer.len() > 40 {
                return Err("is no PPM".to_owned());
            }
        }
        let numbers: Vec<usize> = std::str::from_utf8(buffer)
            .unwrap_or_default()
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let &[width, height, _] = numbers.as_slice() else {
            return Err("is no PPM".to_owned());
        };
        if width > 1 << 14 || height > 1 << 14 {
            return Err(format!("is {width} by {height} pixels"));
        }
        let header = buffer.len();
        buffer.resize(header + width * height * 3, 0);
        self.running
            .out
            .read_exact(&mut buffer[header..])
            .map_err(|error| format!("is cut: {error}"))?;
        ppm(buffer).map(|(picture, _)| Some(picture))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Writes a program that behaves like ffmpeg: it gives this number of frames of 2 by 1 pixels, the nth of colour n,
    /// and then exits with this status.
    fn program(frames: usize, status: u8) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ffmpeg");
        let mut all = Vec::new();
        for at in 0..frames {
            all.extend_from_slice(b"P6\n2 1\n255\n");
            all.extend_from_slice(&[at as u8; 6]);
        }
        std::fs::write(folder.path().join("frames"), all).unwrap();
        let script = format!("#!/bin/sh\ncat \"$(dirname \"$0\")/frames\"\necho broken >&2\nexit {status}\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    fn colours(program: &Path, cut: &Cut) -> Result<Vec<(usize, u8)>, MediaError> {
        let mut colours = Vec::new();
        let segments = pictures(program, Path::new("-v.mp4"), cut, &mut |segment, frame| {
            colours.push((segment, frame.data[0]));
        })?;
        assert_eq!(segments, colours.len());
        Ok(colours)
    }

    #[test]
    fn segments_of_a_video_are_those_of_its_frames_in_a_folder() {
        for frames in [1, 3, 11, 12, 13, 76, 82, 84] {
            let (_folder, program) = program(frames, 0);
            for pick in [Pick::Centre, Pick::Linspace] {
                for count in [None, Some(10)] {
                    let cut = Cut {
                        pick,
                        count,
                        ..Cut::default()
                    };
                    let wanted: Vec<(usize, u8)> = cut
                        .frames(frames)
                        .into_iter()
                        .map(|at| at as u8)
                        .enumerate()
                        .collect();
                    assert_eq!(
                        colours(&program, &cut).unwrap(),
                        wanted,
                        "{frames} frames, {cut:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_video_is_read_no_further_than_its_last_segment() {
        let (folder, program) = program(16, 0);
        let frames = folder.path().join("frames");
        let mut bytes = std::fs::read(&frames).unwrap();
        bytes.extend_from_slice(b"no picture, which would be refused");
        std::fs::write(&frames, bytes).unwrap();
        let cut = |count| Cut {
            count,
            ..Cut::default()
        };
        let refused = colours(&program, &cut(Some(3))).unwrap_err().to_string();
        assert!(refused.contains("gave a frame that is no PPM"), "{refused}");
        let begin = Cut {
            frame_rate: 2.0,
            ..cut(Some(2))
        };
        assert_eq!(colours(&program, &begin).unwrap(), [(0, 1), (1, 3)]);
    }

    #[test]
    fn a_video_that_is_cut_gives_what_it_has_and_one_without_frames_what_ffmpeg_said() {
        let (_folder, cut_short) = program(16, 1);
        assert_eq!(colours(&cut_short, &Cut::default()).unwrap(), [(0, 4), (1, 12)]);
        let (_folder, empty) = program(0, 1);
        let refused = colours(&empty, &Cut::default()).unwrap_err().to_string();
        assert!(
            refused.contains("`-v.mp4` has no frame that ffmpeg can read") && refused.contains("broken"),
            "{refused}"
        );
        let absent = colours(Path::new("/nowhere/ffmpeg"), &Cut::default())
            .unwrap_err()
            .to_string();
        assert!(
            absent.contains("needs the program `/nowhere/ffmpeg`") && absent.contains("install ffmpeg"),
            "{absent}"
        );
    }
}
