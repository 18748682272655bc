/**
 * One colour for each label, the same as in the drawings of the Python package.
 *
 * In: labels. Out: colours as "#RRGGBB", and the colour of letters on them.
 */

// Easy to distinguish, also with colour blindness: the palette of Okabe and Ito without black and yellow, and two more.
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#B00020"];
const MANY = 24; // labels
const GOLDEN_ANGLE = 0.381966;
const LIGHTNESS = [0.42, 0.58, 0.3];

export class LabelColors {
  #indices = new Map();

  /** The colour of a label: labels get colours in the order in which they are first seen. */
  of(label) {
    const key = String(label ?? "");
    if (!this.#indices.has(key)) this.#indices.set(key, this.#indices.size);
    return colorAt(this.#indices.get(key));
  }

  /** Begin anew if so many labels have colours that those of further ones are hard to tell apart. */
  clearIfMany() {
    if (this.#indices.size > MANY) this.#indices.clear();
  }
}

function colorAt(index) {
  if (index < COLORS.length) return COLORS[index];
  const number = index - COLORS.length;
  return fromHsl((0.07 + number * GOLDEN_ANGLE) % 1, 0.75, LIGHTNESS[number % LIGHTNESS.length]);
}

function fromHsl(hue, saturation, lightness) {
  const spread = saturation * Math.min(lightness, 1 - lightness);
  const channel = (offset) => {
    const sector = (offset + hue * 12) % 12;
    const value = lightness - spread * Math.max(-1, Math.min(sector - 3, 9 - sector, 1));
    return Math.round(value * 255).toString(16).padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`.toUpperCase();
}

/** Black or white, whichever has more contrast to a colour; the rim of its lines too, so that one of both is seen on any picture. */
export function lettersOn(color) {
  const luminance = luminanceOf(color);
  return 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 ? "#FFFFFF" : "#000000";
}

/** Source: WCAG 2.2, relative luminance. */
function luminanceOf(color) {
  const [red, green, blue] = [1, 3, 5].map((start) => {
    const value = parseInt(color.slice(start, start + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
