//! MD5, written from RFC 1321 for the emulated storage host and for nobody else: it has to find out by itself what the
//! other side got wrong.

/// Lowercase hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    super::keys::hex(&digest(bytes))
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 16] {
    let mut message = bytes.to_vec();
    message.push(0x80);
    message.resize(message.len().next_multiple_of(64), 0);
    if message.len() - bytes.len() < 9 {
        message.resize(message.len() + 64, 0);
    }
    let tail = message.len() - 8;
    message[tail..].copy_from_slice(&(bytes.len() as u64 * 8).to_le_bytes());

    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in message.chunks_exact(64) {
        let word = |at: usize| {
            let bytes = block[4 * at..4 * at + 4].try_into();
            u32::from_le_bytes(bytes.expect("4 bytes"))
        };
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64_usize {
            let (f, g, turns) = match i {
                0..16 => ((b & c) | (!b & d), i, [7, 12, 17, 22]),
                16..32 => ((b & d) | (c & !d), 5 * i + 1, [5, 9, 14, 20]),
                32..48 => (b ^ c ^ d, 3 * i + 5, [4, 11, 16, 23]),
                _ => (c ^ (b | !d), 7 * i, [6, 10, 15, 21]),
            };
            let sum = a
                .wrapping_add(f)
                .wrapping_add(sine(i))
                .wrapping_add(word(g % 16));
            a = d;
            d = c;
            c = b;
            b = b.wrapping_add(sum.rotate_left(turns[i % 4]));
        }
        state = [
            state[0].wrapping_add(a),
            state[1].wrapping_add(b),
            state[2].wrapping_add(c),
            state[3].wrapping_add(d),
        ];
    }
    let mut digest = [0; 16];
    for (at, word) in state.into_iter().enumerate() {
        digest[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
    }
    digest
}

/// The standard's table, by its own definition.
fn sine(step: usize) -> u32 {
    (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        for (text, expected) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ] {
            assert_eq!(hex(text.as_bytes()), expected);
        }
    }
}
