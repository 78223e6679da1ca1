//! Decodes JPEG, PNG and PPM to RGB.

use std::io::Cursor;

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_png::PngDecoder;

use super::Rgb;

/// Largest number of pixels on a side. The limit is needed because a small file can claim any size.
const MAX_SIDE: usize = 1 << 14;
/// Largest number of pixels in a picture; as RGB, these are 192 MiB.
const MAX_PIXELS: usize = 1 << 26;

/// Decodes a picture. The first bytes tell whether it is JPEG, PNG or PPM.
///
/// The result equals that of Pillow's `convert("RGB")`:
/// - Alpha is dropped, not blended. Grey and palette pictures become RGB.
/// - Samples of 16 bits keep their upper 8 bits. In grey pictures without alpha, they keep their value instead, and
///   values above 255 become 255.
/// - Neither an EXIF orientation nor a colour profile is applied.
///
/// For JPEG with subsampled chroma, values differ from those of libjpeg by up to 4 of 255.
///
/// # Errors
/// Returns a text that says what is wrong with the picture and what was expected.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => jpeg(bytes),
        [0x89, b'P', b'N', b'G', ..] => png(bytes),
        [b'P', b'5' | b'6', ..] => Ok(ppm(bytes)?.0),
        [] => Err("is empty, expected a JPEG, PNG or PPM picture".to_owned()),
        _ => {
            let first: String = bytes.iter().take(8).map(|&byte| byte as char).collect();
            Err(format!(
                "begins with `{}`, expected a JPEG, PNG or PPM picture",
                first.escape_default()
            ))
        }
    }
}

fn options() -> DecoderOptions {
    DecoderOptions::default()
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .inflate_set_limit(1 << 29)
}

fn checked(width: usize, height: usize) -> Result<(usize, usize), String> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(format!(
            "is {width} by {height} pixels, expected 1 to {MAX_SIDE} on a side and {MAX_PIXELS} in all"
        ));
    }
    Ok((width, height))
}

/// Does a JPEG have its end marker? The decoder fills what is missing with grey, so that a frame that was cut off would pass
/// as a picture. A thumbnail before the scan can have an end marker of its own.
fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xda => break,
            // A byte of padding before a marker.
            0xff => at += 1,
            _ => {
                let size = bytes
                    .get(at + 2..at + 4)
                    .map_or(2, |size| u16::from_be_bytes([size[0], size[1]]));
                at += 2 + usize::from(size);
            }
        }
    }
    let scan = bytes.get(at..).unwrap_or_default();
    scan.windows(2).any(|marker| marker == [0xff, 0xd9])
}

fn jpeg(bytes: &[u8]) -> Result<Rgb, String> {
    let problem = |error: zune_jpeg::errors::DecodeErrors| format!("is no JPEG that can be read: {error:?}");
    let options = options().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(problem)?;
    let info = decoder.info().ok_or("is a JPEG without a size")?;
    let (width, height) = checked(info.width.into(), info.height.into())?;
    let data = decoder.decode().map_err(problem)?;
    if !ends(bytes) {
        return Err(format!(
            "is a JPEG that is cut off: {} bytes, expected an end marker",
            bytes.len()
        ));
    }
    rgb(width, height, data, ColorSpace::RGB)
}

fn png(bytes: &[u8]) -> Result<Rgb, String> {
    let problem = |error: zune_png::error::PngDecodeErrors| format!("is no PNG that can be read: {error:?}");
    // The chunk `IHDR` comes first. Bytes 24 and 25 are its depth and colour type: 16 bits, and grey without alpha.
    let grey = bytes.get(12..16) == Some(b"IHDR") && bytes.get(24..26) == Some(&[16, 0]);
    let options = options()
        .png_set_strip_to_8bit(!grey)
        .png_set_add_alpha_channel(false)
        .png_set_decode_animated(false);
    let mut decoder = PngDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(problem)?;
    let (width, height) = decoder.dimensions().ok_or("is a PNG without a size")?;
    let (width, height) = checked(width, height)?;
    let mut data = decoder.decode_raw().map_err(problem)?;
    if grey {
        // Convert as Pillow's `I16_RGB` does. A picture with a transparent grey (`tRNS`) has alpha too; `rgb` drops it.
        data = data
            .chunks_exact(2)
            .map(|sample| if sample[0] == 0 { sample[1] } else { 255 })
            .collect();
    }
    let space = decoder.colorspace().ok_or("is a PNG without a colour space")?;
    rgb(width, height, data, space)
}

/// Converts decoded samples to three samples per pixel.
fn rgb(width: usize, height: usize, data: Vec<u8>, space: ColorSpace) -> Result<Rgb, String> {
    let channels = space.num_components();
    if data.len() != width * height * channels {
        return Err(format!(
            "decodes to {} bytes, expected {width} by {height} pixels of {channels}",
            data.len()
        ));
    }
    let data = match space {
        ColorSpace::RGB => data,
        ColorSpace::RGBA => data
            .chunks_exact(4)
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect(),
        ColorSpace::Luma => data.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorSpace::LumaA => data.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        other => return Err(format!("has colour space {other:?}, expected grey, RGB or RGBA")),
    };
    Ok(Rgb { width, height, data })
}

/// Decodes a binary PPM or PGM at the start of `bytes`. Returns the picture, and the number of bytes that it has. As in Pillow,
/// samples of any range are scaled to 0 to 255.
///
/// # Errors
/// Returns a text that says what is wrong with the picture. The text begins with `is cut` if bytes are missing at the
/// end.
pub fn ppm(bytes: &[u8]) -> Result<(Rgb, usize), String> {
    let channels = if bytes.get(1) == Some(&b'5') { 1 } else { 3 };
    let mut numbers = [0_usize; 3];
    let mut at = 2;
    for number in &mut numbers {
        loop {
            match bytes.get(at) {
                Some(byte) if byte.is_ascii_whitespace() => at += 1,
                // A comment goes to the end of its line.
                Some(b'#') => at += bytes[at..].iter().take_while(|&&byte| byte != b'\n').count(),
                _ => break,
            }
        }
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) && at - start < 9 {
            at += 1;
        }
        let digits = std::str::from_utf8(&bytes[start..at]).unwrap_or_default();
        *number = digits
            .parse()
            .map_err(|_| format!("is a PPM whose header is wrong at byte {start}, expected a number"))?;
    }
    let [width, height, most] = numbers;
    if !(1..=0xffff).contains(&most) {
        return Err(format!(
            "is a PPM whose largest sample is {most}, expected 1 to 65535"
        ));
    }
    let (width, height) = checked(width, height)?;
    let size = if most > 255 { 2 } else { 1 };
    // Exactly one byte of white space ends the header.
    let (from, to) = (at + 1, at + 1 + width * height * channels * size);
    let data = bytes
        .get(from..to)
        .ok_or_else(|| format!("is cut: {} bytes, expected {to}", bytes.len()))?;
    let samples = match (most, size) {
        (255, _) => data.to_vec(),
        (_, 1) => data.iter().map(|&sample| scaled(sample.into(), most)).collect(),
        _ => data
            .chunks_exact(2)
            .map(|sample| scaled(u16::from_be_bytes([sample[0], sample[1]]), most))
            .collect(),
    };
    let space = if channels == 1 {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    Ok((rgb(width, height, samples, space)?, to))
}

/// Returns a sample of 0 to `most` as one of 0 to 255, rounded.
fn scaled(sample: u16, most: usize) -> u8 {
    ((usize::from(sample).min(most) * 510 + most) / (2 * most)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_picture_is_refused_with_its_first_bytes() {
        let refused = decode(b"GIF89a....").unwrap_err();
        assert_eq!(
            refused,
            "begins with `GIF89a..`, expected a JPEG, PNG or PPM picture"
        );
        assert!(decode(b"").unwrap_err().starts_with("is empty"));
        assert!(
            decode(b"\xff\xd8\xff\xe0rest")
                .unwrap_err()
                .contains("no JPEG that can be read")
        );
        assert!(decode(b"\x89PNG\r\n\x1a\n").unwrap_err().contains("PNG"));
    }

    #[test]
    fn grey_of_16_bits_is_cut_off_at_255_as_pillow_does() {
        // Each file has one row of the samples 0, 1, 100, 255, 256, 300, 0x7fff and 0xffff, compressed with zlib: as
        // grey, as grey with alpha, and as RGB.
        let values = |file: &[u8]| {
            let picture = decode(file).unwrap();
            assert_eq!((picture.width, picture.height), (8, 1));
            picture.data.iter().step_by(3).copied().collect::<Vec<u8>>()
        };
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/media");
        let read = |name: &str| values(&std::fs::read(folder.join(name)).unwrap());
        // The expected values are those of Pillow 13.0.0.
        assert_eq!(read("grey16.png"), [0, 1, 100, 255, 255, 255, 255, 255]);
        assert_eq!(read("greyalpha16.png"), [0, 0, 0, 0, 1, 1, 127, 255]);
        assert_eq!(read("rgb16.png"), [0, 0, 0, 0, 1, 1, 127, 255]);
    }

    #[test]
    fn ppm_is_read_to_its_end_and_a_cut_or_huge_one_is_refused() {
        let picture = b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06rest";
        let (rgb, taken) = ppm(picture).unwrap();
        assert_eq!(
            (rgb.width, rgb.height, &rgb.data[..]),
            (2, 1, &[1, 2, 3, 4, 5, 6][..])
        );
        assert_eq!(&picture[taken..], b"rest");
        assert!(decode(&picture[..12]).unwrap_err().starts_with("is cut"));
        assert!(
            decode(b"P6 99999 99999 255 ")
                .unwrap_err()
                .contains("99999 by 99999 pixels")
        );
        assert!(decode(b"P6 x").unwrap_err().contains("expected a number"));
    }

    #[test]
    fn ppm_may_have_comments_grey_and_samples_of_any_range() {
        let data = |bytes: &[u8]| decode(bytes).unwrap().data;
        assert_eq!(
            data(b"P6\n# made by a drawing program\n1 1 # one\n255\n\x01\x02\x03"),
            [1, 2, 3]
        );
        assert_eq!(data(b"P5 2 1 255\n\x07\xff"), [7, 7, 7, 255, 255, 255]);
        // The expected values are those of Pillow 13.0.0.
        assert_eq!(data(b"P6 1 1 127\n\x00\x40\x7f"), [0, 129, 255]);
        assert_eq!(data(b"P6 1 1 65535\n\x00\x00\x80\x00\xff\xff"), [0, 128, 255]);
        assert!(
            decode(b"P6 1 1 70000 ....")
                .unwrap_err()
                .contains("largest sample is 70000")
        );
    }

    #[test]
    fn a_jpeg_that_is_cut_off_is_refused() {
        let Some(shared) = crate::ingest::shared("a_jpeg_that_is_cut_off_is_refused") else {
            return;
        };
        let bytes = std::fs::read(shared.join("golden/images/jpeg420_320x240.jpg")).unwrap();
        assert_eq!(
            decode(&[&bytes[..], b"rest"].concat()).unwrap(),
            decode(&bytes).unwrap()
        );
        for cut in [2, 50, bytes.len() / 2] {
            let refused = decode(&bytes[..bytes.len() - cut]).unwrap_err();
            assert!(refused.contains("is a JPEG that is cut off"), "{refused}");
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        let Some(shared) = crate::ingest::shared("no_cut_or_changed_byte_panics") else {
            return;
        };
        for name in ["tiny_5x4.png", "jpeg420_320x240.jpg"] {
            let bytes = std::fs::read(shared.join("golden/images").join(name)).unwrap();
            let whole = decode(&bytes).unwrap();
            for at in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
                // The decoder may return an error or a picture, but it must not panic, and the size of the picture must
                // match its data.
                let mut changed = bytes.clone();
                changed[at] ^= 0x55;
                for hostile in [&bytes[..at], &changed] {
                    if let Ok(rgb) = decode(hostile) {
                        assert_eq!(rgb.data.len(), rgb.width * rgb.height * 3);
                    }
                }
            }
            assert_eq!(decode(&bytes).unwrap(), whole);
        }
    }
}
