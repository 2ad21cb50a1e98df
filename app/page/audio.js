// Converts audio that the browser can decode to 16 kHz mono WAV, which is small and suits the engine.
// Formats that only the browser knows (m4a, webm) work this way, too.

const RATE = 16000; // Hz
const LARGE = 48 * 1024 * 1024; // bytes

/** What to send for a file: `{file, seconds}`. Files that the browser cannot decode are sent as they
 * are, with `seconds` null; so are large ones in a form the node reads itself, because decoding
 * holds all the samples in memory. */
export async function prepare(file) {
  if (file.size > LARGE && nodeReads(await file.slice(0, 12).arrayBuffer())) {
    return { file, seconds: null };
  }
  let decoded;
  try {
    const context = new OfflineAudioContext(1, 1, RATE); // decodeAudioData resamples to the context's rate
    decoded = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    return { file, seconds: null };
  }
  const name = `${file.name.replace(/\.[^.]*$/, "") || "audio"}.wav`;
  const wav = toWav(mixed(decoded), decoded.sampleRate);
  return { file: new File([wav], name, { type: "audio/wav" }), seconds: decoded.duration };
}

/** Returns the mean of the channels. */
function mixed(decoded) {
  const sum = decoded.getChannelData(0).slice();
  for (let channel = 1; channel < decoded.numberOfChannels; channel += 1) {
    const samples = decoded.getChannelData(channel);
    for (let i = 0; i < sum.length; i += 1) sum[i] += samples[i];
  }
  if (decoded.numberOfChannels > 1) {
    for (let i = 0; i < sum.length; i += 1) sum[i] /= decoded.numberOfChannels;
  }
  return sum;
}

/** Returns a WAV file of 16-bit samples: a 44-byte header, then the samples, little-endian. */
export function toWav(samples, rate) {
  const bytes = new ArrayBuffer(44 + 2 * samples.length);
  const view = new DataView(bytes);
  const text = (at, letters) => {
    for (let i = 0; i < letters.length; i += 1) view.setUint8(at + i, letters.charCodeAt(i));
  };
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of this chunk
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  for (let i = 0; i < samples.length; i += 1) {
    const sample = Math.max(-1, Math.min(1, samples[i]));
    view.setInt16(44 + 2 * i, Math.round(sample * 32767), true);
  }
  return bytes;
}

/** Returns whether a file begins like one that the node reads: WAV, FLAC, Ogg, MP3, AIFF, AU, CAF or W64. */
function nodeReads(buffer) {
  const bytes = new Uint8Array(buffer);
  const start = String.fromCharCode(...bytes.slice(0, 4));
  if (["RIFF", "fLaC", "OggS", "FORM", ".snd", "caff", "riff"].includes(start)) return true;
  return start.startsWith("ID3") || (bytes[0] === 0xff && (bytes[1] & 0xe0) === 0xe0);
}
