// The codec in a browser: the exported step graphs, their state, and the weights.
//
// Owns the inputs and outputs of onnxruntime-web; knows nothing of the page.

/** Frames that are encoded at a time. */
const CHUNK_FRAMES = 25;

const TYPES = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array };

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  return answer;
}

/** An exported model. */
export class Codec {
  constructor(ort, manifest, sessions) {
    this.ort = ort;
    this.manifest = manifest;
    this.sessions = sessions;
    const config = manifest.config;
    this.samplingRate = config.sampling_rate;
    this.channels = config.number_channels;
    this.samplesPerFrame = config.downsample_rate;
    this.numQuantizers = config.quantizer_kwargs.num_quantizers;
    this.codebookSize = config.quantizer_kwargs.codebook_size;
    this.frameRate = this.samplingRate / this.samplesPerFrame;
  }

  /** Load the export in a folder: its manifest, its weights, and both step graphs. */
  static async load(ort, folder) {
    const manifest = await (await fetched(`${folder}/onnx.json`)).json();
    const externalData = [];
    for (const path of Object.keys(manifest.weights)) {
      const data = new Uint8Array(await (await fetched(`${folder}/${path}`)).arrayBuffer());
      externalData.push({ path, data });
    }
    const sessions = {};
    for (const name of ["encoder_step", "decoder_step"]) {
      const url = `${folder}/${manifest.graphs[name].file}`;
      const options = { externalData, executionProviders: ["wasm"] };
      sessions[name] = await ort.InferenceSession.create(url, options);
    }
    return new Codec(ort, manifest, sessions);
  }

  /** The bitrate in kbit/s with this many quantizers. */
  bitrate(layers) {
    return (layers * Math.ceil(Math.log2(this.codebookSize)) * this.frameRate) / 1000;
  }

  /**
   * Codes of a clip.
   * @param channels a Float32Array for each channel, at the model's rate
   * @param onProgress called with the finished share
   * @returns an Int32Array for each quantizer
   */
  async encode(channels, onProgress = () => {}) {
    const unit = this.samplesPerFrame;
    const frames = Math.ceil(channels[0].length / unit);
    const layers = Array.from({ length: this.numQuantizers }, () => new Int32Array(frames));
    const stream = new Stream(this, "encoder_step", Math.min(CHUNK_FRAMES, frames));
    for (let start = 0; start < frames; start += CHUNK_FRAMES) {
      const count = Math.min(CHUNK_FRAMES, frames - start);
      const chunk = new Float32Array(channels.length * count * unit);
      channels.forEach((samples, channel) => {
        const part = samples.subarray(start * unit, (start + count) * unit);
        chunk.set(part, channel * count * unit);
      });
      const given = this.tensor("float32", chunk, [1, channels.length, count * unit]);
      const { audio_codes: codes } = await stream.step({ input_values: given }, count);
      layers.forEach((layer, index) => {
        const row = codes.data.subarray(index * count, (index + 1) * count);
        layer.set(Array.from(row, Number), start);
      });
      onProgress((start + count) / frames);
    }
    return layers;
  }

  /** Open a stream that decodes chunks of up to this many frames. */
  decoder(maxChunkFrames) {
    return new Decoder(this, maxChunkFrames);
  }

  tensor(type, data, shape) {
    return new this.ort.Tensor(type, data, shape);
  }
}

/** One stream through a step graph: its positions and its KV cache. */
class Stream {
  constructor(codec, name, maxChunkFrames) {
    this.codec = codec;
    this.session = codec.sessions[name];
    this.state = { positions: codec.tensor("int64", new BigInt64Array(1), [1]) };
    for (const ring of codec.manifest.graphs[name].rings) {
      const slots = ring.context_steps + maxChunkFrames * ring.steps_per_frame;
      const shape = [1, ring.num_heads, slots, ring.head_dim];
      for (const kind of ["key", "value"]) {
        const empty = new Float32Array(shape.reduce((a, b) => a * b));
        this.state[`past_key_values.${ring.layer}.${kind}`] = codec.tensor("float32", empty, shape);
      }
    }
  }

  /** Run the next frames; the state that comes out goes into the next call. */
  async step(given, frames) {
    const active = this.codec.tensor("bool", new Uint8Array(frames).fill(1), [1, frames]);
    const found = await this.session.run({ ...given, active, ...this.state });
    for (const name of Object.keys(this.state)) {
      const next = name === "positions" ? "next_positions" : name.replace("past_key_values", "present");
      this.state[name] = found[next];
    }
    return found;
  }
}

/** A stream that decodes codes. */
class Decoder {
  constructor(codec, maxChunkFrames) {
    this.codec = codec;
    this.stream = new Stream(codec, "decoder_step", maxChunkFrames);
  }

  /**
   * Decode the next frames; the number of quantizers may change from step to step.
   * @param layers an Int32Array for each quantizer
   * @returns a Float32Array for each channel
   */
  async step(layers, start, count, used) {
    const codec = this.codec;
    const type = codec.manifest.codes_type;
    const codes = new TYPES[type](used * count);
    const convert = type === "int64" ? BigInt : Number;
    for (let layer = 0; layer < used; layer += 1) {
      for (let frame = 0; frame < count; frame += 1) {
        codes[layer * count + frame] = convert(layers[layer][start + frame]);
      }
    }
    const given = codec.tensor(type, codes, [used, 1, count]);
    const { audio } = await this.stream.step({ audio_codes: given }, count);
    const samples = count * codec.samplesPerFrame;
    return Array.from({ length: codec.channels }, (_, channel) =>
      audio.data.slice(channel * samples, (channel + 1) * samples),
    );
  }
}
