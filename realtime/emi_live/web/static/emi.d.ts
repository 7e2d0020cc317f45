// Types of emi.js, protocol 1. Every text message of the server arrives as a CustomEvent with this `detail`.

export const PROTOCOL: 1;

export type Emotion = "admiration" | "amusement" | "determination" | "empathic_pain" | "excitement" | "joy";
export type Modality = "vision" | "audio" | "text";
export type State = "live" | "missing" | "failed" | "unavailable";

export interface Hello {
  type: "hello"; session: string; protocol: 1; role: "source" | "controller" | "viewer"; emotions: string[];
  /** Seconds between estimates. */ hop_s: number;
  /** Seconds of media that an estimate sees. */ window_s: number;
  bundle: string; version: string; max_message: number;
  /** For the person who is analysed. */ notice: string | null;
}
export interface ModalityReport {
  state: State; used: boolean;
  /** Age of the newest evidence. */ age_ms: number | null;
  /** Why it is not live. */ reason?: string;
  frames?: number; committed?: string; partial?: string; language?: string;
  contribution?: Record<string, number>;
}
/** The object of the JSON line: docs/messages.md. */
export interface Estimate {
  seq: number;
  /** End of the window, seconds since the session began. */ t: number;
  wall: string;
  /** Each in [0, 1], or in its `ranges`; empty with a checkpoint of BAH. */ intensities: Record<string, number>;
  /** Of each, where nine of ten ratings lie; null: not known. */ intervals: Record<string, [number, number] | null> | null;
  ranges?: Record<string, [number, number]>; ambivalence?: number;
  /** A neutral of one's own, with `window.baseline`: seconds that it was learned from; 5 are enough. */
  baseline?: { mode: "running" | "calibrate" } & Partial<Record<"vision" | "audio", { seconds: number; ready: boolean }>>;
  modalities: Record<Modality, ModalityReport>;
  latency_ms: { window: number; fusion: number; capture_to_estimate: number | null };
  engine: string; bundle: string; schema: number; source: string; session: string; marker?: number;
}
export interface EstimateEvent {
  type: "estimate"; estimate: Estimate;
  /** End of the window by this page's `performance.now()`. */ end_ms: number | null;
}
export interface SpokenWord { number: number; text: string; start: number; end: number; committed: boolean }
/** Words that are new or have changed; a word keeps its number. */
export interface WordsEvent { type: "words"; words: SpokenWord[]; withdrawn: number[]; language: string | null }
/** Where the faces of one picture are: only with `faces: true`. */
export interface FacesEvent {
  type: "faces";
  /** x and y of the upper left corner, width, height, in fractions of the picture. */ boxes: [number, number, number, number][];
  /** Which box is the face that is read; null: none of them. */ followed: number | null;
  /** Capture time by this page's `performance.now()`. */ at_ms: number | null;
  /** After `showLandmarks`: x and y of 478 points, one after the other, in thousandths. */ landmarks: number[] | null;
}
export interface StateEvent {
  type: "state"; state: "loading" | "running" | "paused" | "lost"; muted: boolean; seconds: number | null;
}
export interface WarningEvent { type: "warning"; text: string; counter: string | null; count: number | null }
export interface Bye { type: "bye"; reason: string }
/** A picture of the server's own camera: only of `emi-live --web`. */
export interface Picture { jpeg: Blob; capturedMs: number }
export interface Disconnected { /** Until the next attempt to connect. */ retryMs: number }

export interface EmiEvents {
  hello: CustomEvent<Hello>; estimate: CustomEvent<EstimateEvent>; words: CustomEvent<WordsEvent>;
  faces: CustomEvent<FacesEvent>; state: CustomEvent<StateEvent>; warning: CustomEvent<WarningEvent>; bye: CustomEvent<Bye>;
  disconnected: CustomEvent<Disconnected>; picture: CustomEvent<Picture>;
  /** The session runs, but nothing has come for two seconds. */ silent: CustomEvent<object>;
  /** Something comes again. */ heard: CustomEvent<object>;
}

export interface SendOptions {
  /** Default 15. */ framesPerSecond?: number;
  /** Pictures are scaled down to this width in pixels; default 640. */ width?: number;
  /** Of JPEG, in [0, 1]; default 0.8. */ quality?: number;
}

export class EmiSession extends EventTarget {
  static open(options?: {
    /** Several are addresses of one service on a cluster: where one does not answer, the next is tried. */ server?: string | string[];
    token?: string | null;
    /** Whether `faces` events are wanted. */ faces?: boolean;
    /** How media go to the server; default "websocket". With "webrtc", `send` connects, and rejects if it cannot. */
    transport?: "websocket" | "webrtc";
  }): Promise<EmiSession>;
  constructor(id: string, options?: {
    server?: string | string[]; token?: string | null; role?: "source" | "controller" | "viewer";
    /** Whether `picture` events are wanted. */ pictures?: boolean; faces?: boolean;
    transport?: "websocket" | "webrtc";
    /** STUN or TURN servers, as the server names them. */ ice?: RTCIceServer[];
  });
  /** Changes with `hello` if another server takes the session over. */ readonly id: string;
  readonly connected: boolean;
  readonly transport: "websocket" | "webrtc";
  readonly pictures: { sent: number; leftOut: number };
  send(stream: MediaStream, options?: SendOptions): Promise<void>;
  mark(): void;
  pause(): void;
  resume(): void;
  mute(): void;
  unmute(): void;
  follow(at?: [number, number]): void;
  showLandmarks(on?: boolean): void;
  /** Resolves when the server knows. */
  close(): Promise<void>;
  addEventListener<K extends keyof EmiEvents>(
    type: K, listener: (event: EmiEvents[K]) => void, options?: boolean | AddEventListenerOptions,
  ): void;
}

export function packMedia(kind: 1 | 2, timeMs: number, payload: ArrayBufferView, rateHz?: number): Uint8Array;
/** Gives sound its time by `performance.now()`: call it with each message's own start, its length, and when it came. */
export function soundClock(): (startMs: number, lengthMs: number, nowMs: number) => number;
