/** Messages between the page and the audio worklet that plays replies. Positions are samples with 24 kHz. */

export type PlayerCommand =
  /** Queue audio of a conversation item. */
  | { kind: "audio"; item: string; samples: Float32Array }
  /** No more audio follows for now, so what is queued is played even if it is short. */
  | { kind: "end" }
  /** Stop at once and drop what is queued. */
  | { kind: "flush" };

export type PlayerReport =
  /** The first audible sample of an item is played at `at`, in seconds on the clock of the audio context. */
  | { kind: "audible"; item: string; at: number }
  /**
   * State of the player, several times a second. `playing` is true from the first sample of a reply to its last one,
   * in gaps too. `played` samples of the item are over at `at`. `level` is the root mean square of the newest audio, 0 to 1, and `gaps` the number of gaps so far.
   */
  | { kind: "progress"; item: string; played: number; at: number; playing: boolean; level: number; gaps: number }
  /** Answer to flush: `played` samples of the item were heard. */
  | { kind: "flushed"; item: string; played: number };
