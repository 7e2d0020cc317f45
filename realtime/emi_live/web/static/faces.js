// The faces over one's own picture: a button for each, so that a click or a key chooses the one to read.
const $ = (id) => document.getElementById(id);
const POINTS_PX = 2;
let shown = { boxes: [] };

new ResizeObserver(place).observe($("faces").parentElement);
$("video").onresize = $("remote").onload = place;

/** Show the boxes of a `faces` event; `follow` is called with the middle of the one that is chosen. */
export function showFaces(faces, follow) {
  shown = faces;
  const buttons = [...$("faces").querySelectorAll("button")];
  faces.boxes.forEach((box, number) => {
    const button = buttons[number] ?? $("faces").appendChild(document.createElement("button"));
    const [x, y, width, height] = box, read = number === faces.followed;
    // The picture is shown as in a mirror.
    Object.assign(button.style, { left: `${100 * (1 - x - width)}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%` });
    button.setAttribute("aria-pressed", read);
    const label = read ? `Face ${number + 1}, is read` : `Face ${number + 1}: read this one`;
    if (button.title !== label) button.title = button.ariaLabel = label;
    button.onclick = () => follow([inside(x + width / 2), inside(y + height / 2)]);
  });
  for (const button of buttons.slice(faces.boxes.length)) button.remove();
  drawLandmarks(faces.landmarks);
}

function drawLandmarks(points) {
  const canvas = $("landmarks");
  canvas.hidden = !points;
  if (!points) return;
  const scale = devicePixelRatio, width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), side = POINTS_PX * scale;
  context.clearRect(0, 0, width, height);
  context.fillStyle = "#fffc";
  for (let i = 0; i < points.length; i += 2)
    context.fillRect((1 - points[i] / 1000) * width - side / 2, points[i + 1] / 1000 * height - side / 2, side, side);
}

/** Lay the layer of faces over the picture itself, which does not always fill its frame. */
function place() {
  const frame = $("faces").parentElement, remote = $("remote");
  const [wide, high] = remote.hidden ? [$("video").videoWidth, $("video").videoHeight] : [remote.naturalWidth, remote.naturalHeight];
  if (!wide || !frame.clientWidth) return;
  frame.style.aspectRatio = `${wide} / ${high}`;
  const scale = Math.min(frame.clientWidth / wide, frame.clientHeight / high), width = wide * scale, height = high * scale;
  Object.assign($("faces").style, {
    width: `${width}px`, height: `${height}px`, left: `${(frame.clientWidth - width) / 2}px`, top: `${(frame.clientHeight - height) / 2}px`,
  });
  drawLandmarks(shown.landmarks);
}

function inside(share) { return Math.max(0, Math.min(1, share)); }
