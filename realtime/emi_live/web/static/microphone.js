// Collects the microphone's samples into blocks of 40 ms of 16-bit sound, in the audio thread.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / 25));
    this.filled = 0;
  }

  process([channels]) {
    if (!channels.length) return true;
    const count = channels[0].length;
    for (let i = 0; i < count; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const value = Math.max(-1, Math.min(1, sum / channels.length));
      this.block[this.filled++] = Math.round(value * 32767);
      if (this.filled === this.block.length) {
        const samples = this.block.slice();
        this.port.postMessage({ samples, first: currentFrame + i + 1 - samples.length }, [samples.buffer]);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("emi-microphone", Microphone);
