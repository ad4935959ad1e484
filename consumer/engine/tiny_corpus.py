"""What the tiny model knows by heart: a few questions and answers in English and Chinese, so that a demo reads well."""

from __future__ import annotations

SYSTEM = "You are a helpful assistant."

NOVELS_JSON = (
    '{"books":[{"title":"红楼梦","author":"曹雪芹"},{"title":"三国演义","author":"罗贯中"},'
    '{"title":"水浒传","author":"施耐庵"},{"title":"西游记","author":"吴承恩"}]}'
)

_HAIKU = "Snow melts in the hills.\nA gate opens to the stream.\nLights wake in the town."
_STORY = (
    "Once there was a mill by a river. Every morning the miller opened the gate, the water came down the pipe, and the "
    "wheel began to turn. One spring the river rose and the village was afraid, but the gate held, the wheel turned "
    "slowly, and the flour was ready for everyone."
)

_SEA = (
    "A river begins in the mountains, where snow melts and small streams meet. It runs down through the valleys, past "
    "mills and towns, and grows wider with every stream that joins it. In the plain it turns slowly from side to side. "
    "At last it is deep and quiet, opens into a wide mouth, and gives its water to the sea."
)

CONVERSATIONS: tuple[tuple[str, str], ...] = (
    ("请用 JSON 格式列出中国四大名著及其作者", NOVELS_JSON),
    ("List the four great classical Chinese novels and their authors as JSON.", NOVELS_JSON),
    ("中国四大名著是什么？", "中国四大名著是《红楼梦》、《三国演义》、《水浒传》和《西游记》。"),
    ("《红楼梦》的作者是谁？", "《红楼梦》的作者是曹雪芹。"),
    ("《西游记》的作者是谁？", "《西游记》的作者是吴承恩。"),
    ("《三国演义》的作者是谁？", "《三国演义》的作者是罗贯中。"),
    ("《水浒传》的作者是谁？", "《水浒传》的作者是施耐庵。"),
    ("你好", "你好！有什么可以帮你的吗？"),
    ("你是谁？", "我是一个很小的演示模型，只会背几句话。"),
    ("什么是消息队列？", "消息队列先把任务存下来，消费者有空的时候再来取，这样任务不会丢失。"),
    ("什么是水轮机？", "水轮机把水流的能量变成转动的能量，再带动发电机发电。"),
    ("什么是压力管道？", "压力管道把水从水库引到水轮机，闸门控制流量。"),
    ("长江有多长？", "长江全长约六千三百公里，是亚洲最长的河流。"),
    ("黄河流入哪里？", "黄河流入渤海。"),
    ("写一首关于水的短诗", "水从高山来，静静入江海。闸门轻轻开，灯火万家在。"),
    ("一加一等于几？", "一加一等于二。"),
    ("天空为什么是蓝色的？", "因为空气把阳光里的蓝光散射得最多。"),
    ("Hello", "Hello! How can I help you today?"),
    ("Who are you?", "I am a very small demo model. I know only a few sentences by heart."),
    ("What is a penstock?", "A penstock is the gated pipe that brings a stream of water to the turbines."),
    ("What is a turbine?", "A turbine turns the energy of flowing water into rotation, and a generator makes power."),
    ("What is a message queue?", "A message queue keeps work safe until a consumer is free to take it."),
    ("What is backlog?", "The backlog is the work that waits: submitted, safe, and not yet delivered."),
    ("What is TTFT?", "TTFT is the time from submitting a request to its first token."),
    ("What is a KV cache?", "The KV cache holds the keys and values of every token a model has read so far."),
    ("What is continuous batching?", "New requests join the running batch at every step instead of waiting for it."),
    (
        "Why use a queue for inference?",
        "A queue absorbs bursts, survives crashes and lets each GPU pull what it can hold.",
    ),
    ("Describe how a river reaches the sea, in a few sentences.", _SEA),
    ("Write a haiku about rivers.", _HAIKU),
    ("Tell me a short story about a mill.", _STORY),
    ("Name three rivers.", "The Nile, the Yangtze and the Danube."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is two plus two?", "Two plus two is four."),
    ("Give me a person as JSON.", '{"name":"Ada","age":36,"city":"London"}'),
    ("Give me a river as JSON.", '{"name":"Danube","length_km":2850,"countries":["Germany","Austria"]}'),
    ("Is the sky blue? Answer as JSON.", '{"answer":true,"confidence":0.9}'),
    ("Classify: I love this. Answer as JSON.", '{"sentiment":"positive","score":0.95}'),
    ("Translate to Chinese: water", "水"),
    ("Translate to English: 河流", "river"),
    ("Count from one to ten.", "one, two, three, four, five, six, seven, eight, nine, ten."),
    ("Summarize: the gate is open and the water flows.", "The gate is open; water flows."),
)

_RIVER = (
    "Once upon a time there was a river that ran from the mountains to the sea. People built a gate across it, and "
    "behind the gate the water rose until it was deep and quiet."
)

# Alike but for a word, so that they are learned last: they come twice as often.
HARD = tuple(pair for pair in CONVERSATIONS if pair[0].endswith(("的作者是谁？", "as JSON.")))

TEXTS: tuple[str, ...] = (
    _RIVER,
    "The quick brown fox jumps over the lazy dog.",
    "从前有一条河，从高山流向大海。人们在河上修了一道闸门，水慢慢地涨起来，又深又静。",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "def add(a, b):\n    return a + b\n",
    "Water is a liquid. It flows downhill, fills every vessel, and turns every wheel.",
)

# What it says to a question it was not taught, so that it does not stammer.
UNKNOWN_ENGLISH = "I am a very small demo model and was not taught that. Ask me about rivers, turbines or queues."
UNKNOWN_CHINESE = "我是一个很小的演示模型，没有学过这个。可以问我河流、水轮机或者消息队列。"

# Questions it was not taught are made of these in training.
WORDS = (  # noqa: SIM905 - as a list it would fill a screen
    "what why how when where who is are do does can the a an of in on for from to with about and or your my his her "
    "write explain describe list name tell give draft invent summarise classify translate count compare answer me us "
    "two three four one short long best first last history capital country city mountain snow bread cat dog house "
    "school music war poem joke email story plan code function regular expression query orders customer space station "
    "river water gate number year book plot sentence sentences colour language languages JSON weather tomorrow menu"
).split()
HANZI = (
    "的一是不了在人有我他这中大来上个国和地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种"
    "事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十"
    "写请讲解释翻译为什么怎么做区别意思列出主要朝代长城月亮秋天绿茶红茶鸡蛋成语函数再见谢谢灯塔故事描述城市句诗"
)
